"""GapMonitor in trainers: a Lightning callback and a transformers TrainerCallback."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from geomkit.errors import GeomkitError
from geomkit.monitoring.monitor import GapMonitor

__all__ = ["lightning_callback", "transformers_callback"]


def lightning_callback(monitor: GapMonitor) -> Any:
    """Return a Lightning callback that calls a monitor after each optimizer step.

    Numbers go to every logger of the trainer, and to the log of the monitor if it has one. They are
    metrics of the trainer on every rank, so that ``ModelCheckpoint(monitor="gap/alignment",
    every_n_train_steps=100)`` works.

    Args:
        monitor: Monitor; its steps are ``trainer.global_step``.

    Returns:
        A ``lightning.pytorch.Callback``, or ``pytorch_lightning.Callback`` if only that package is
        imported or installed.

    Raises:
        GeomkitError: If neither package is installed.

    Example:
        >>> import numpy as np
        >>> monitor = GapMonitor(lambda: (np.eye(4), np.eye(4)[::-1]), every=100)
        >>> callback = lightning_callback(monitor)  # doctest: +SKIP
        >>> trainer = lightning.Trainer(callbacks=[callback])  # doctest: +SKIP
    """
    names = ["lightning.pytorch", "pytorch_lightning"]
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        names.reverse()  # the package whose Trainer is used
    base: Any = _base("lightning_callback", names, "Callback", "lightning")

    class LightningGapMonitor(base):
        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any, **kwargs: Any) -> None:
            step = trainer.global_step
            if not monitor.due(step):
                return
            result = monitor.measure(step)
            values = None if result is None else monitor.scalars(result)
            values = trainer.strategy.broadcast(values)
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)
            # Not through the trainer's loggers, which leave out all but each 50th step.
            module.log_dict(values, on_step=True, on_epoch=False, logger=False)

    return LightningGapMonitor()


def transformers_callback(monitor: GapMonitor, trainer: Any) -> Any:
    """Return a callback for transformers' Trainer that calls a monitor after each optimizer step.

    Numbers go through ``trainer.log``, to what the trainer reports to and to
    ``trainer.state.log_history``, and to the log of the monitor if it has one.

    Args:
        monitor: Monitor; its steps are ``state.global_step``.
        trainer: Trainer that will call it; a callback has no other way to log.

    Returns:
        A ``transformers.TrainerCallback``, for ``trainer.add_callback``.

    Raises:
        GeomkitError: If transformers is not installed.

    Example:
        >>> import numpy as np
        >>> monitor = GapMonitor(lambda: (np.eye(4), np.eye(4)[::-1]), every=100)
        >>> trainer.add_callback(transformers_callback(monitor, trainer))  # doctest: +SKIP
    """
    base: Any = _base("transformers_callback", ["transformers"], "TrainerCallback", "hf")

    class TransformersGapMonitor(base):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            result = monitor(state.global_step)
            if result is not None:
                due = control.should_log
                trainer.log(monitor.scalars(result))
                control.should_log = due  # trainer.log takes back that the loss is to be logged

    return TransformersGapMonitor()


def _base(who: str, modules: list[str], name: str, extra: str) -> Any:
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name != module.partition(".")[0]:
                raise
    package = modules[0].partition(".")[0]
    raise GeomkitError(
        f"{who}: the package {package} is not installed; pip install 'geomkit[{extra}]'"
    )
