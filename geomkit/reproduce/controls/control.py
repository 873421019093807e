"""Controls: two encoders of one kind, or of two, trained from a start that is set by hand.

What the training loop cannot do lies here and nothing else: inputs of one kind on both sides,
encoders that share or copy weights, partners that are wrong on purpose, and a gap closed before
the first step by a fixed orthogonal map. Optimizer, schedule, gradient and order are training's
own: a control of pictures and names with nothing set by hand ends with an ordinary run's weights.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import model_config
from geomkit.reproduce.controls.towers import build_towers, inputs_of
from geomkit.reproduce.controls.views import Views, load_views
from geomkit.training.config import TrainConfig, learning_rate
from geomkit.training.order import plan_order
from geomkit.training.step import backward, finite_terms, optimizer_for

__all__ = ["METRICS", "Control", "control_steps", "run_control"]

METRICS = ("centroid_distance", "linear_separability", "alignment", "uniformity")
"""What is measured along the way, besides the contrastive loss."""
MAX_PAIRS = 2048
"""As many as the paper trains its control on, and closes the gap with."""
SHORT = 200
_MOMENTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0)
"""When a control is measured, as shares of its steps: most happens early."""


@dataclass(frozen=True)
class Control:
    """What a control trains.

    Attributes:
        config: data, architecture, dimension, loss, schedule and seed, as for any training.
        first, second: what either encoder sees, of :data:`geomkit.reproduce.controls.views.VIEWS`.
        encoders: of :data:`geomkit.reproduce.controls.towers.ENCODERS`.
        closed: whether a fixed map closes the gap before training.
        mismatched: whether every input is paired with the next one's partner.
    """

    config: TrainConfig
    first: str = "picture"
    second: str = "picture"
    encoders: str = "separate"
    closed: bool = False
    mismatched: bool = False

    @property
    def key(self) -> str:
        """A name that what is computed alone decides, whatever the machine."""
        plain = asdict(self)
        for name in ("precision", "threads"):
            del plain["config"][name]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def control_steps(steps: int) -> list[int]:
    """The steps after which a control is measured.

    A short one is measured half as often, or measuring would take longer than training.

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
) -> list[dict[str, Any]]:
    """Train a control, or go on with it, or read what a finished one found.

    A killed run goes on from its last measurement, with the weights it would have had.

    Args:
        control: what to train.
        folder: of its state; a finished control leaves its records alone there.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: of the CPU; 0 leaves them alone.
        say: told once, when training starts.

    Returns:
        A record a measurement: ``step``, and for ``train`` and ``val`` the ``pairs``, ``metrics``
        and ``stderr`` by name, ``contrastive_loss`` among them.

    Raises:
        GeomkitError: for data that lack a view, an unknown name, or a loss that is not finite.
    """
    done = folder / f"{control.key}.json"
    if done.exists():
        return list(json.loads(done.read_text("utf-8"))["records"])
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
    with atomic_write(done, overwrite=True) as file:
        content = {"format": "geomkit-control", "schema_version": 1, "control": asdict(control)}
        file.write(json.dumps({**content, "records": records}, indent=1).encode())
    (folder / f"{control.key}.pt").unlink(missing_ok=True)
    return records


def _trained(
    control: Control, path: Path, device: str, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    config = control.config
    architecture = model_config(config.model, dim=config.dim, image_size=config.image_size)
    preprocess, tokenizer = Preprocess.for_model(architecture), Tokenizer.for_model(architecture)
    views = {
        split: load_views(
            config.data, control.first, control.second,
            split=split, preprocess=preprocess, pairs=pairs or MAX_PAIRS,
        )
        for split, pairs in (("train", config.pairs), ("val", None))
    }  # fmt: skip
    # A batch that the data cannot fill is as large as they are.
    size = min(config.batch_size, len(set(views["train"].data.names)))
    order = plan_order(views["train"].data, batch_size=size, seed=config.seed)
    precision = resolve_precision(config.precision, device)

    torch.manual_seed(config.seed)
    towers = build_towers(
        control.first, control.second, architecture,
        encoders=control.encoders, temperature=config.temperature,
    ).to(device).train()  # fmt: skip
    optimizer = optimizer_for(towers, config)  # type: ignore[arg-type]
    criterion = ContrastiveLoss(config.loss)
    weights = [w for w in towers.parameters() if w.requires_grad]
    step = 0
    records: list[dict[str, Any]] = []
    sides = {
        split: (inputs_of(found.first, tokenizer), inputs_of(found.second, tokenizer))
        for split, found in views.items()
    }
    if control.mismatched:
        sides = {split: (a, b.roll(-1, dims=0)) for split, (a, b) in sides.items()}

    def measure() -> None:
        record: dict[str, Any] = {"step": step}
        for split, (a, b) in sides.items():
            with autocast(device, precision):
                x, y = towers.rows(a, b, preprocess)
            record[split] = _measured(x, y, size, config)
        records.append(record)
        state = {
            "step": step,
            "records": json.dumps(records),
            "weights": towers.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        with atomic_write(path, overwrite=True) as file:
            torch.save(state, file)

    if path.exists():
        stored = torch.load(path, map_location=device, weights_only=True)
        towers.load_state_dict(stored["weights"])
        optimizer.load_state_dict(stored["optimizer"])
        step, records = stored["step"], json.loads(stored["records"])
    else:
        say(_describe(control, views))
        if control.closed:
            a, b = (side[:MAX_PAIRS] for side in sides["train"])
            x, y = towers.rows(a, b, preprocess)
            towers.turn.copy_(torch.from_numpy(Procrustes.fit(x, y).matrix))
        measure()

    moments = set(control_steps(config.steps))
    a, b = sides["train"]
    while step < config.steps:
        rows = torch.from_numpy(order.rows(step))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        optimizer.zero_grad(set_to_none=True)
        parts = backward(
            towers, criterion, *towers.ready(a[rows], b[rows], preprocess),
            device=device, precision=precision,
        )  # fmt: skip
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(weights, config.clip_norm)
        values = torch.stack(list(parts.values())).tolist()
        finite_terms(step + 1, list(parts), values, out=path)
        optimizer.step()
        step += 1
        if step in moments:
            measure()
    return records


def _measured(x: Tensor, y: Tensor, size: int, config: TrainConfig) -> dict[str, Any]:
    """Metrics of unit rows ``(n, d)``, and the contrastive loss in batches as training sees."""
    scale = 1.0 / config.temperature
    size = min(size, len(x))
    starts = range(0, len(x) - size + 1, size)
    losses = [float(contrastive(x[i : i + size], y[i : i + size], scale)) for i in starts]
    error = float(np.std(losses, ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else None
    found = gap(x.numpy(), y.numpy(), metrics=METRICS, seed=config.seed)
    return {
        "pairs": len(x),
        "metrics": {"contrastive_loss": float(np.mean(losses)), **found.metrics},
        "stderr": {**({} if error is None else {"contrastive_loss": error}), **found.stderr},
    }


def _describe(control: Control, views: dict[str, Views]) -> str:
    if control.first == control.second:
        seen = f"the same {control.first}s twice"
    else:
        seen = f"{control.first} and {control.second}"
    details = [f"{control.encoders} encoders", f"{len(views['train'])} pairs"]
    details += ["gap closed at the start"] * control.closed
    details += ["wrong partners"] * control.mismatched
    return f"control: {seen}, {', '.join(details)}, {control.config.steps} steps"
