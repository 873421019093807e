"""Controls: trainings of two encoders from a chosen start, beyond what the training loop does.

Both sides may see inputs of one kind; encoders may share or copy weights; pairs may be mismatched;
and a fixed orthogonal map may close the gap before the first step. Optimizer, schedule, gradient
and data order are those of training: a control of images and captions without any of these ends
with the weights of an ordinary run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomkit._core.files import atomic_write
from geomkit._core.runtime import autocast, numerics, resolve_device, resolve_precision
from geomkit.functional import contrastive
from geomkit.interventions import Procrustes
from geomkit.losses import ContrastiveLoss
from geomkit.metrics import gap
from geomkit.models.architectures import OWN_CONFIGS, model_config
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.reproduce.controls.towers import build_towers, inputs_of
from geomkit.reproduce.controls.views import Views, load_views
from geomkit.reproduce.framework.experiment import computation, digest
from geomkit.training.config import TrainConfig, learning_rate
from geomkit.training.order import plan_order
from geomkit.training.step import backward, finite_terms, optimizer_for

__all__ = ["METRICS", "Control", "Measurement", "Split", "control_steps", "run_control"]

METRICS = ("centroid_distance", "linear_separability", "alignment", "uniformity")
"""Metrics that are measured during training, besides the contrastive loss."""
MAX_PAIRS = 2048
"""Number of pairs on which the paper trains its control and fits the map."""
SHORT = 200
_MOMENTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0)
"""Shares of the steps at which a control is measured; most changes early."""


@dataclass(frozen=True)
class Control:
    """Configuration of a control.

    Attributes:
        config: Data, architecture, dimension, loss, schedule and seed, as for any training.
        first: View of the first encoder, one of :data:`geomkit.reproduce.controls.views.VIEWS`.
        second: View of the second encoder.
        encoders: One of :data:`geomkit.reproduce.controls.towers.ENCODERS`.
        closed: Whether a fixed map closes the gap before training.
        mismatched: Whether every input is paired with the partner of the next one.
    """

    config: TrainConfig
    first: str = "picture"
    second: str = "picture"
    encoders: str = "separate"
    closed: bool = False
    mismatched: bool = False

    @property
    def key(self) -> str:
        """Name that depends on the computation only, not on the machine."""
        return digest({**asdict(self), "config": computation(self.config)})


@dataclass(frozen=True)
class Split:
    """Metrics of one split.

    Attributes:
        pairs: Number of pairs.
        metrics: Values by name, with ``contrastive_loss``.
        stderr: Standard errors by name, where known.
    """

    pairs: int
    metrics: dict[str, float]
    stderr: dict[str, float]


@dataclass(frozen=True)
class Measurement:
    """Metrics of a control after some steps.

    Attributes:
        step: Number of steps.
        train: Metrics of the training pairs.
        val: Metrics of held-out pairs.
    """

    step: int
    train: Split
    val: Split


def _from_json(records: list[dict[str, Any]]) -> list[Measurement]:
    return [Measurement(r["step"], Split(**r["train"]), Split(**r["val"])) for r in records]


def control_steps(steps: int) -> list[int]:
    """Steps after which a control is measured.

    A short control is measured half as often; measuring would else take longer than training.

    >>> control_steps(200), control_steps(100)
    ([0, 4, 10, 20, 30, 40, 60, 80, 110, 140, 170, 200], [0, 5, 15, 30, 55, 85, 100])
    """
    moments = _MOMENTS if steps >= SHORT else (*_MOMENTS[::2], 1.0)
    return sorted({round(share * steps) for share in moments})


def run_control(
    control: Control,
    folder: Path,
    *,
    device: str = "auto",
    threads: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> list[Measurement]:
    """Train a control, continue an interrupted one, or read the records of a finished one.

    An interrupted control continues from its last measurement and ends with the same weights.

    Args:
        control: Configuration.
        folder: Folder of its state; a finished control leaves only its records there.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: CPU threads; 0 changes nothing.
        say: Receives a line when training starts.

    Returns:
        One record per measurement.

    Raises:
        GeomkitError: For data that lack a view, an unknown name, or a loss that is not finite.
    """
    done = folder / f"{control.key}.json"
    if done.exists():
        return _from_json(json.loads(done.read_text("utf-8"))["records"])
    folder.mkdir(parents=True, exist_ok=True)
    before = torch.get_num_threads()
    device = resolve_device(device)
    cuda = [torch.device(device).index or 0] if device.startswith("cuda") else []
    try:
        if threads:
            torch.set_num_threads(threads)
        precision = resolve_precision(control.config.precision, device)
        with torch.random.fork_rng(devices=cuda), numerics(precision):
            records = _trained(control, folder / f"{control.key}.pt", device, say)
    finally:
        torch.set_num_threads(before)
    content = {"format": "geomkit-control", "schema_version": 1, "control": asdict(control),
               "records": list(map(asdict, records))}  # fmt: skip
    with atomic_write(done, overwrite=True) as file:
        file.write(json.dumps(content, indent=1).encode())
    (folder / f"{control.key}.pt").unlink(missing_ok=True)
    return records


def _trained(
    control: Control, path: Path, device: str, say: Callable[[str], None]
) -> list[Measurement]:
    config = control.config
    architecture = model_config(config.model, dim=config.dim, image_size=config.image_size)
    preprocess, tokenizer = Preprocess.for_model(architecture), Tokenizer.for_model(architecture)
    load = partial(load_views, config.data, control.first, control.second, preprocess=preprocess)
    views = {
        "train": load(split="train", pairs=config.pairs or MAX_PAIRS),
        "val": load(split="val", pairs=MAX_PAIRS),
    }
    if config.model in OWN_CONFIGS:  # as in any training
        both = views["train"].first, views["train"].second
        captions = [text for side in both if isinstance(side, list) for text in side]
        tokenizer = tokenizer.for_captions(captions)
    # A batch is no larger than the data.
    size = min(config.batch_size, len(set(views["train"].data.names)))
    order = plan_order(views["train"].data, batch_size=size, seed=config.seed)
    precision = resolve_precision(config.precision, device)

    torch.manual_seed(config.seed)
    towers = build_towers(
        control.first, control.second, architecture,
        encoders=control.encoders, temperature=config.temperature,
        tokens=None if tokenizer.kept is None else tokenizer.known,
    ).to(device).train()  # fmt: skip
    optimizer = optimizer_for(towers, config)  # type: ignore[arg-type]
    criterion = ContrastiveLoss(config.loss)
    weights = [w for w in towers.parameters() if w.requires_grad]
    step = 0
    records: list[Measurement] = []
    sides = {
        split: (inputs_of(found.first, tokenizer), inputs_of(found.second, tokenizer))
        for split, found in views.items()
    }
    if control.mismatched:
        sides = {split: (a, b.roll(-1, dims=0)) for split, (a, b) in sides.items()}

    def measure() -> None:
        found = {}
        for split, (a, b) in sides.items():
            with autocast(device, precision):
                x, y = towers.rows(a, b)
            found[split] = _measured(x, y, size, config)
        records.append(Measurement(step, **found))
        state = {"step": step, "records": json.dumps(list(map(asdict, records))),
                 "weights": towers.state_dict(), "optimizer": optimizer.state_dict()}  # fmt: skip
        with atomic_write(path, overwrite=True) as file:
            torch.save(state, file)

    if path.exists():
        stored = torch.load(path, map_location=device, weights_only=True)
        towers.load_state_dict(stored["weights"])
        optimizer.load_state_dict(stored["optimizer"])
        step, records = stored["step"], _from_json(json.loads(stored["records"]))
    else:
        say(_describe(control, views))
        if control.closed:
            a, b = (side[:MAX_PAIRS] for side in sides["train"])
            x, y = towers.rows(a, b)
            towers.turn.copy_(torch.from_numpy(Procrustes.fit(x, y).matrix))
        measure()

    moments = set(control_steps(config.steps))
    a, b = sides["train"]
    while step < config.steps:
        rows = torch.from_numpy(order.rows(step))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        optimizer.zero_grad(set_to_none=True)
        parts = backward(towers, criterion, a[rows], b[rows], device=device, precision=precision)
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(weights, config.clip_norm)
        values = torch.stack(list(parts.values())).tolist()
        finite_terms(step + 1, list(parts), values, out=path)
        optimizer.step()
        step += 1
        if step in moments:
            measure()
    return records


def _measured(x: Tensor, y: Tensor, size: int, config: TrainConfig) -> Split:
    """Metrics of unit rows ``(n, d)``, and the contrastive loss in batches as in training."""
    scale = 1.0 / config.temperature
    size = min(size, len(x))
    starts = range(0, len(x) - size + 1, size)
    losses = [float(contrastive(x[i : i + size], y[i : i + size], scale)) for i in starts]
    found = gap(x.numpy(), y.numpy(), metrics=METRICS, seed=config.seed)
    stderr = {}
    if len(losses) > 1:
        stderr["contrastive_loss"] = float(np.std(losses, ddof=1)) / math.sqrt(len(losses))
    metrics = {"contrastive_loss": float(np.mean(losses)), **found.metrics}
    return Split(len(x), metrics, {**stderr, **found.stderr})


def _describe(control: Control, views: dict[str, Views]) -> str:
    if control.first == control.second:
        seen = f"the same {control.first}s twice"
    else:
        seen = f"{control.first} and {control.second}"
    details = [f"{control.encoders} encoders", f"{len(views['train'])} pairs"]
    details += ["gap closed at the start"] * control.closed
    details += ["wrong partners"] * control.mismatched
    return f"control: {seen}, {', '.join(details)}, {control.config.steps} steps"
