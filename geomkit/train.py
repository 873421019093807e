"""Training: one linear loop, from a configuration to a checkpoint.

The order of the pairs is a function of (seed, epoch, position) and the learning rate one of the
step, evaluation consumes no randomness, and everything else that a step depends on is in the
checkpoint: a killed run that is resumed ends with the weights of one that was not, bit for bit on
a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomkit._io import check_target
from geomkit._runtime import autocast, resolve_device, resolve_precision, versions
from geomkit.checkpoints import load_checkpoint, save_checkpoint
from geomkit.data import PairData, load_data
from geomkit.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.extract import encode
from geomkit.loss_spec import LossSpec, parse_loss
from geomkit.losses import ContrastiveLoss
from geomkit.metrics import gap
from geomkit.models import (
    MAX_LOG_SCALE,
    TwoEncoder,
    build,
    model_config,
    normalize_pixels,
    preprocess_config,
    tokenize,
    tokenizer_config,
)
from geomkit.recipes import TrainConfig, differences, evaluation_steps, learning_rate

__all__ = ["Event", "Interrupted", "train"]

SNAPSHOT_PAIRS = 1000


@dataclass(frozen=True)
class Event:
    """What the loop tells whoever watches.

    Attributes:
        kind: ``start``, ``step``, ``evaluation`` or ``end``.
        step: optimizer steps done.
        config: as resolved.
        device: as resolved.
        terms: each weighted term of the last step's loss.
        record: the entry of the history an evaluation wrote.
        images_per_second: since the last event.
        note: a line for the user.
    """

    kind: str
    step: int
    config: TrainConfig
    device: str
    terms: dict[str, float]
    record: dict[str, Any]
    images_per_second: float = 0.0
    note: str = ""


class Interrupted(Exception):
    """The run was asked to stop; its state is in the checkpoint."""


def train(
    config: TrainConfig,
    out: str | Path = "ckpt.pt",
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    watch: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train a two-encoder model and write its checkpoint.

    Args:
        config: what to compute, see :func:`geomkit.recipes.configure`.
        out: the checkpoint, written at every evaluation.
        device: ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``.
        resume: go on from ``out`` if it is there; a finished run is left as it is.
        overwrite: start anew even if ``out`` is there.
        watch: called at the start, after each step, after each evaluation and at the end.
        should_stop: asked after each step; if true the state is saved and the run ends.
        progress: called while the data set is prepared.

    Returns:
        The content of the checkpoint.

    Raises:
        GeomkitError: for a configuration that does not fit the data or this machine, an existing
            ``out`` without ``resume`` or ``overwrite``, another configuration than the one being
            resumed, or a loss that is not finite.
        Interrupted: if ``should_stop`` said so.
    """
    out = Path(out)
    spec = parse_loss(config.loss)
    device = resolve_device(device)
    stored = _stored(out, resume=resume, overwrite=overwrite)
    if stored is not None:
        changed = differences(stored["config"], config)
        if changed:
            raise GeomkitError(
                f"{out}: was trained with another configuration ({'; '.join(changed)}); "
                "give the same options, or --overwrite to start anew"
            )
        config = replace(
            config,
            precision=stored["config"]["precision"],
            threads=stored["config"]["threads"],
        )
    config = replace(
        config,
        precision=resolve_precision(config.precision, device),
        threads=config.threads or torch.get_num_threads(),
    )
    architecture = model_config(config.model, dim=config.dim, image_size=config.image_size)
    preprocess = preprocess_config(architecture)
    tokenizer = tokenizer_config(architecture)
    data, held_out = _load(config, preprocess["size"], progress)
    description = {
        "spec": config.data,
        "n": config.pairs,
        "split": config.eval_split,
        "fingerprint": data.fingerprint,
    }
    if stored is not None and stored["data"]["fingerprint"] != description["fingerprint"]:
        raise GeomkitError(
            f"{out}: was trained on other data ({stored['data']['fingerprint']['source']}, "
            f"{stored['data']['fingerprint']['count']} pairs) than '{config.data}' is now; "
            "install those versions, or --overwrite to start anew"
        )
    if stored is not None and stored["step"] >= config.steps:
        watch(Event("end", stored["step"], config, device, {}, {}, note="already finished"))
        return stored

    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        cuda = [torch.device(device).index or 0] if device.startswith("cuda") else []
        with torch.random.fork_rng(devices=cuda):
            return _run(
                config, out, device, spec, architecture, preprocess, tokenizer,
                data, held_out, description, stored, watch, should_stop,
            )  # fmt: skip
    finally:
        torch.set_num_threads(threads_before)


def _stored(out: Path, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    if resume and overwrite:
        raise GeomkitError("--resume and --overwrite exclude each other; give one")
    if out.exists() and not (resume or overwrite) and not out.is_dir():
        raise GeomkitError(
            f"{out}: exists already; give --resume to go on, --overwrite to start anew, "
            "or another --out"
        )
    check_target(out, overwrite=True)
    return load_checkpoint(out) if resume and out.exists() else None


def _load(
    config: TrainConfig, size: int, progress: Callable[[int, int], None] | None
) -> tuple[PairData, PairData]:
    data = load_data(config.data, split="train", size=size, n=config.pairs, progress=progress)
    if config.batch_size > len(data):
        raise GeomkitError(
            f"batch size: {config.batch_size} is more than the {len(data)} training pairs of "
            f"'{config.data}'; give --batch-size {len(data)} or less"
        )
    if config.eval_split == "train":
        return data, data
    return data, load_data(config.data, split=config.eval_split, size=size)


def _run(
    config: TrainConfig,
    out: Path,
    device: str,
    spec: LossSpec,
    architecture: dict[str, Any],
    preprocess: dict[str, Any],
    tokenizer: dict[str, Any],
    data: PairData,
    held_out: PairData,
    description: dict[str, Any],
    stored: dict[str, Any] | None,
    watch: Callable[[Event], None],
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    torch.manual_seed(config.seed)
    model = build(
        architecture,
        temperature=config.temperature,
        learn_temperature=config.learn_temperature,
    )
    criterion = ContrastiveLoss(spec)
    step, history, snapshots = 0, [], []
    if stored is not None:
        step, history, snapshots = stored["step"], stored["history"], stored["snapshots"]
        model.clip.load_state_dict(stored["state_dict"])
    model.to(device).train()
    log_scale = model.get_parameter("clip.logit_scale")
    optimizer = _optimizer(model, config)
    if stored is not None:
        optimizer.load_state_dict(stored["optimizer"])
        torch.set_rng_state(stored["rng"]["cpu"])
        if device.startswith("cuda") and stored["rng"]["cuda"]:
            torch.cuda.set_rng_state(stored["rng"]["cuda"][0], device)

    tokens = tokenize(data.names, tokenizer)
    eval_tokens = tokens if held_out is data else tokenize(held_out.names, tokenizer)
    evaluations = set(evaluation_steps(config))
    steps_per_epoch = len(data) // config.batch_size
    weights = [p for p in model.parameters() if p.requires_grad]
    terms: dict[str, float] = {}

    def checkpoint() -> dict[str, Any]:
        return {
            "state_dict": model.clip.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": step // steps_per_epoch,
            "step": step,
            "rng": {
                "cpu": torch.get_rng_state(),
                "cuda": [torch.cuda.get_rng_state(device)] if device.startswith("cuda") else [],
            },
            "model_config": architecture,
            "preprocess": preprocess,
            "tokenizer": tokenizer,
            "loss": str(spec),
            "config": asdict(config),
            "data": description,
            "history": history,
            "snapshots": snapshots,
            "versions": versions(),
        }

    def evaluate() -> dict[str, Any]:
        encoded = encode(
            model, held_out, eval_tokens, preprocess,
            device=device, precision=config.precision,
        )  # fmt: skip
        image, text = encoded.image, encoded.text
        embeddings = Embeddings.of(image.numpy(), text.numpy())
        scale = log_scale.detach().exp().cpu()
        record = {
            "step": step,
            "epoch": step / steps_per_epoch,
            "split": held_out.split,
            "pairs": len(held_out),
            "lr": learning_rate(config, max(0, step - 1)),
            "temperature": float(1.0 / scale),
            "train_terms": dict(terms),
            "loss": _batched_loss(criterion, image, text, scale, config.batch_size),
            "metrics": dict(gap(embeddings, seed=config.seed).metrics),
        }
        history.append(record)
        if config.dim == 3:
            snapshots.append(
                {
                    "step": step,
                    "image": image[:SNAPSHOT_PAIRS].clone(),
                    "text": text[:SNAPSHOT_PAIRS].clone(),
                }
            )
        return record

    watch(Event("start", step, config, device, {}, {}, note=_describe(data, held_out)))
    if stored is None:
        record = evaluate()
        save_checkpoint(out, checkpoint())
        watch(Event("evaluation", step, config, device, terms, record))
    pending: tuple[int, list[str], Callable[[], list[float]]] | None = None
    order, order_epoch = np.empty(0, int), -1
    clock = time.perf_counter()

    while step < config.steps:
        epoch, position = divmod(step, steps_per_epoch)
        if epoch != order_epoch:
            order = np.random.default_rng([config.seed, epoch]).permutation(len(data))
            order_epoch = epoch
        rows = order[position * config.batch_size : (position + 1) * config.batch_size]
        pictures = torch.from_numpy(data.pictures(rows)).to(device, non_blocking=True)
        words = model.trim(tokens[torch.from_numpy(rows)]).to(device, non_blocking=True)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)

        with autocast(device, config.precision):
            x, y, scale = model(normalize_pixels(pictures, preprocess), words)
        parts = criterion(x, y, scale, output_dict=True)
        values = torch.stack(list(parts.values()))
        optimizer.zero_grad(set_to_none=True)
        values.sum().backward()
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(weights, config.clip_norm)
        # On a CPU the loss is looked at before it can spoil the weights; on CUDA one step late,
        # so that the device never waits for the look: the weights are then spoilt, but nothing is
        # saved, and the last good checkpoint stays.
        if pending is not None:
            terms = _finite_terms(*pending, out=out)
        pending = (step + 1, list(parts), _sent(values.detach()))
        if not device.startswith("cuda"):
            terms, pending = _finite_terms(*pending, out=out), None
        optimizer.step()
        if config.learn_temperature:
            with torch.no_grad():
                log_scale.clamp_(0.0, MAX_LOG_SCALE)
        step += 1

        now = time.perf_counter()
        speed, clock = config.batch_size / (now - clock), now
        watch(Event("step", step, config, device, terms, {}, speed))
        stopping = should_stop() and step < config.steps
        if step in evaluations or stopping:
            if pending is not None:
                terms, pending = _finite_terms(*pending, out=out), None
            record = evaluate() if step in evaluations else {}
            save_checkpoint(out, checkpoint())
            if record:
                watch(Event("evaluation", step, config, device, terms, record))
            clock = time.perf_counter()
        if stopping:
            raise Interrupted(
                f"stopped at step {step} of {config.steps}; {out} is saved, "
                "the same command with --resume goes on"
            )

    watch(Event("end", step, config, device, terms, history[-1]))
    return load_checkpoint(out)


def _describe(data: PairData, held_out: PairData) -> str:
    where = "themselves" if held_out is data else f"{len(held_out)} held-out pairs"
    return f"{len(data)} pairs of '{data.spec}', evaluated on {where}"


def _optimizer(model: TwoEncoder, config: TrainConfig) -> torch.optim.AdamW:
    decayed: list[torch.nn.Parameter] = []
    free: list[torch.nn.Parameter] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (free if weight.ndim < 2 or "embedding" in name else decayed).append(weight)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def _sent(values: torch.Tensor) -> Callable[[], list[float]]:
    """Start copying values to the host; the call returned waits for that copy and nothing later."""
    if values.device.type != "cuda":
        return values.tolist
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def read() -> list[float]:
        arrived.synchronize()
        return host.tolist()

    return read


def _finite_terms(
    step: int, names: list[str], read: Callable[[], list[float]], *, out: Path
) -> dict[str, float]:
    terms = dict(zip(names, read(), strict=True))
    for name, value in terms.items():
        if not math.isfinite(value):
            raise GeomkitError(
                f"step {step}: {name} is {value}; lower --lr or raise --temperature or --warmup "
                f"({out} holds the last good state)"
            )
    return terms


def _batched_loss(
    criterion: ContrastiveLoss,
    image: torch.Tensor,
    text: torch.Tensor,
    scale: torch.Tensor,
    batch_size: int,
) -> float:
    """The loss over the evaluated pairs in batches as training sees them: it grows with n."""
    whole = max(1, len(image) // batch_size)
    batches = [slice(i * batch_size, (i + 1) * batch_size) for i in range(whole)]
    values = [criterion(image[b], text[b], scale) for b in batches]
    return float(torch.stack(values).mean())
