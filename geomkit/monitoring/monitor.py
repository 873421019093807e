"""GapMonitor: the gap of held-out pairs every N steps of any training, into any logger."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from geomkit._core.array import Array, is_torch, like, to_numpy
from geomkit._core.parallel import one_blas_thread
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.metrics import GapResult, gap, select
from geomkit.monitoring.held_out import Encode, embedder, left_as_found, sample
from geomkit.monitoring.logs import log_to

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DEFAULT_METRICS", "GapMonitor"]

DEFAULT_METRICS = (
    "centroid_distance", "centroid_distance_unbiased", "relative_modality_gap", "paired_cosine",
    "alignment", "spread", "mmd", "text_retrieval_recall@1", "text_retrieval_recall@10",
    "image_retrieval_recall@1", "image_retrieval_recall@10",
)  # fmt: skip
"""Metrics and groups that take well under a second for 2,048 pairs of 512 dimensions."""


class GapMonitor:
    """Measures the gap of held-out pairs every N steps of a training, and logs it.

    Call it at every step of a loop; :func:`~geomkit.monitoring.lightning_callback` and
    :func:`~geomkit.monitoring.transformers_callback` do so in their trainers.

    The training goes on as if nothing had been measured: gradients are off, and the random states
    of Python, numpy and torch, and the mode of ``model``, are restored. An error is raised, with a
    note that says at which step; it is not logged and forgotten.

    Over several ranks of torch.distributed, call it on **every** rank: all of them embed the
    pairs, so that a model whose forward is a collective (FSDP, synchronised normalisation) does
    not wait for ever; the first rank alone measures and logs, the others get ``None``. It sends
    nothing between ranks itself, and takes ``model`` out of DistributedDataParallel: if only one
    rank calls it, nothing hangs, unless the model itself communicates in its forward. A sharded
    model (FSDP) needs an ``encode`` that calls its forward.

    Args:
        held_out: What is measured, one of

            - a function without arguments that returns image rows ``(n, d)`` and text rows
              ``(n, d)``, arrays or tensors, normalised or not; row i of one belongs to row i of
              the other;
            - with ``model``, a DataLoader, a list of batches, or a tuple of two tensors, images
              and texts. Of tensors, and of a DataLoader that goes over a whole data set, only the
              pairs that are drawn are encoded.
        model: Module that embeds. It is in evaluation mode while it is measured. Needed unless
            ``held_out`` is a function that evaluates by itself.
        encode: Function of model and batch (moved to the model's device) that returns image rows
            and text rows. Default: ``encode_image`` and ``encode_text`` on the first two parts of
            a batch, as in open_clip; the two modules of a ``ModuleList``; or, if a batch is a
            mapping, ``image_embeds`` and ``text_embeds`` of the model's output, as in
            transformers.
        every: Number of steps between measurements.
        log: Where the numbers go: path of a ``.csv`` file (continued if it exists), TensorBoard's
            SummaryWriter, a run of Weights & Biases, a Lightning logger, an Accelerator, a
            function of step and numbers by name, or a list of these. Weights & Biases drops a
            step below one that it has seen; if the loop logs without ``step=``, give
            ``lambda step, values: run.log({**values, "step": step})``.
        metrics: Names or groups of :data:`geomkit.METRICS`; default: :data:`DEFAULT_METRICS`.
            ``linear_separability`` and the group ``spectrum`` add some tenths of a second.
        rows: Number of pairs to measure, drawn with the seed, the same at each step if
            ``held_out`` has a fixed order; ``None`` for all. Results say how many were left out.
        errors: Whether to compute standard errors too.
        seed: Random seed of the draw.
        prefix: Beginning of the logged names, such as ``gap/alignment`` and
            ``gap/alignment_stderr``. ``gap/pairs`` and ``gap/pairs_left_out`` are logged too; an
            undefined number is logged as NaN.

    Attributes:
        history: Step and :class:`~geomkit.metrics.GapResult` of each measurement, in order.

    Raises:
        GeomkitError: If a metric is unknown, ``log`` is no logger, an option is out of range, or
            the pairs cannot be read again.

    Example:
        >>> import numpy as np
        >>> x, y = np.eye(4), np.eye(4)[::-1]
        >>> monitor = GapMonitor(lambda: (x, y), every=10, metrics=["alignment"], log=print)
        >>> for step in range(1, 21):
        ...     result = monitor(step)  # doctest: +ELLIPSIS
        10 {'gap/pairs': 4, 'gap/pairs_left_out': 0, 'gap/alignment': 2.0, ...}
        20 {'gap/pairs': 4, 'gap/pairs_left_out': 0, 'gap/alignment': 2.0, ...}
        >>> result.metrics["alignment"], [step for step, _ in monitor.history]
        (2.0, [10, 20])
    """

    def __init__(
        self,
        held_out: Callable[[], tuple[Array, Array]] | Any,
        *,
        model: nn.Module | None = None,
        encode: Encode | None = None,
        every: int = 500,
        log: Any = None,
        metrics: Iterable[str] | str | None = None,
        rows: int | None = 2048,
        errors: bool = True,
        seed: int = 0,
        prefix: str = "gap/",
    ) -> None:
        for name, value, least in (("every", every, 1), ("rows", rows, 2), ("seed", seed, 0)):
            if value is not None and value < least:
                raise GeomkitError(f"{name}: expected {least} or more, got {value}")
        if isinstance(metrics, str):
            metrics = [word.strip() for word in metrics.split(",")]
        self.metrics = select(DEFAULT_METRICS if metrics is None else metrics)
        self.every, self.rows, self.errors, self.seed = every, rows, errors, seed
        self.model, self.prefix = model, prefix
        self.history: list[tuple[int, GapResult]] = []
        self._log, self._seen = log_to(None if _rank() else log), -1
        self._embed: Callable[[], tuple[Array, Array, int]]
        if callable(held_out):
            if encode is not None:
                raise GeomkitError("encode: held_out is a function, which returns the rows itself")
            self._embed = lambda: (*_two(held_out()), 0)
        elif model is None:
            raise GeomkitError("model: expected the module that embeds the batches of held_out")
        else:
            self._embed = embedder(held_out, model, encode, rows=rows, seed=seed)

    def __call__(self, step: int) -> GapResult | None:
        """Measure if it is time: at multiples of ``every``, or at the first step past one.

        Args:
            step: Number of optimizer steps done. A repeated step is not measured again.

        Returns:
            The result; ``None`` if it is not time, and on ranks other than the first.

        Raises:
            GeomkitError: As :meth:`measure`.
        """
        return self.measure(step) if self.due(step) else None

    def due(self, step: int) -> bool:
        """Return whether it is time to measure, and remember the step."""
        before, self._seen = self._seen, int(step)
        if before < 0 or self._seen < before:  # the first one, or another training
            return self._seen % self.every == 0
        return self._seen // self.every > before // self.every

    def measure(self, step: int) -> GapResult | None:
        """Measure now, and log, whatever the step: before the training, or after it.

        Args:
            step: Number of optimizer steps done.

        Returns:
            The result, with ``meta["notes"]`` on pairs left out; ``None`` on ranks other than the
            first.

        Raises:
            GeomkitError: If the rows are unfit, such as NaN or of unequal numbers.
        """
        self._seen = int(step)
        try:
            with left_as_found(self.model):
                image, text, left_out = self._embed()
            if _rank():
                return None
            result = self._measured(image, text, left_out, f"step {self._seen}")
            self.history.append((self._seen, result))
            self._log(self._seen, self.scalars(result))
        except Exception as error:
            error.add_note(f"raised by GapMonitor at step {self._seen}")
            raise
        return result

    def scalars(self, result: GapResult) -> dict[str, float]:
        """Return the numbers of a result under the names that are logged."""
        found: dict[str, float] = {"pairs": result.n, "pairs_left_out": result.meta["left_out"]}
        for name, value in result.metrics.items():
            found[name] = value
            if name in result.stderr:
                found[f"{name}_stderr"] = result.stderr[name]
        return {f"{self.prefix}{name}": value for name, value in found.items()}

    def _measured(self, image: Any, text: Any, left_out: int, source: str) -> GapResult:
        # numpy is faster on the CPU. What is drawn already is kept as it is.
        pairs = [image, text]
        if not all(is_torch(rows) and rows.device.type == "cuda" for rows in pairs):
            pairs = [to_numpy(rows) for rows in pairs]
        if len(pairs[0]) == len(pairs[1]):
            n = len(pairs[0])
            drawn = sample(n, self.rows, self.seed)
            if len(drawn) < n:
                left_out += n - len(drawn)
                pairs = [rows[like(drawn, rows)] for rows in pairs]
        meta: dict[str, Any] = {"left_out": left_out}
        if left_out:
            kept = len(pairs[0])
            meta["notes"] = [
                f"{kept:,} of {kept + left_out:,} pairs, drawn with seed {self.seed}; "
                f"{left_out:,} are left out"
            ]
        # Beside workers that load data, threads that wait for each other take seconds.
        with one_blas_thread(), _outside_autocast(pairs[0]):
            return gap(
                Embeddings.of(*pairs, meta=meta),
                metrics=self.metrics,
                errors=self.errors,
                seed=self.seed,
                source=source,
            )


def _two(found: Any) -> Any:
    if not hasattr(found, "__len__") or len(found) != 2:
        raise GeomkitError(
            f"held_out: expected a function that returns image rows and text rows, got "
            f"{type(found).__name__}" + (f" of {len(found)}" if hasattr(found, "__len__") else "")
        )
    return found


def _outside_autocast(rows: Any) -> AbstractContextManager[Any]:
    """A context that keeps float32 products exact where the caller's autocast would round them."""
    if not is_torch(rows):
        return nullcontext()
    import torch

    return torch.autocast(rows.device.type, enabled=False)


def _rank() -> int:
    """Rank of this process in torch.distributed; 0 without."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available():
        return 0
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
