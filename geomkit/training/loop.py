"""Training: one linear loop, from a configuration to a checkpoint.

The pairs of a step depend on (seed, step) alone, the learning rate and a scheduled temperature on
the step, evaluation leaves the random state as it is, and everything else that a step depends on is
in the checkpoint. So a run that was killed and resumed ends with the weights of an uninterrupted
one, bit for bit on a CPU. Under torchrun every rank computes its share of the same global batch; a
run may be resumed on any number of ranks, and on the same number ends with the same bits.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from geomkit._core.files import check_target, sole_writer
from geomkit._core.parallel import SOLO, Team
from geomkit._core.runtime import numerics, resolve_device, use_device, versions
from geomkit.data.loading import batches
from geomkit.data.pairs import Bad
from geomkit.errors import GeomkitError
from geomkit.extraction.encode import image_batches
from geomkit.losses import ContrastiveLoss
from geomkit.models.checkpoints import Record, TrainedRun, load_run, save_run
from geomkit.models.two_encoder import MAX_LOG_SCALE
from geomkit.training.config import (
    MAX_WORKERS,
    TrainConfig,
    evaluation_steps,
    learning_rate,
    scheduled_log_scale,
)
from geomkit.training.monitor import embed_held_out, evaluate, snapshot
from geomkit.training.preparation import Run, caption_tokens, prepare, replacement, stored_run
from geomkit.training.step import (
    Reading,
    backward,
    check_finite,
    finite_terms,
    optimizer_for,
    settle,
    start_reading,
)

__all__ = ["Event", "Interrupted", "train"]

_TAU = "temperature"
"""Name of the temperature among the values of a step that are read."""


@dataclass(frozen=True)
class Event:
    """What the loop reports to its watchers.

    Attributes:
        kind: ``start``, ``step``, ``evaluation``, ``bad`` (an image that does not decode) or
            ``end``.
        step: Optimizer steps done.
        config: Configuration, resolved.
        device: Device, resolved.
        terms: Weighted terms of the loss of the step ``terms_step``.
        record: Record of an evaluation; at the end, of the last one.
        seconds: Duration of the last step, and the part of it spent waiting for its batch.
        ranks: Number of processes that share the work.
        temperature: Temperature τ in that loss.
        note: A line for the user.
        terms_step: Step that the terms are of, 0 before any is read. On CUDA, where the loss is
            read without waiting for the device, a step's event has those of the step before; an
            evaluation waits for its own.
    """

    kind: str
    step: int
    config: TrainConfig
    device: str
    terms: dict[str, float]
    record: Record | None = None
    seconds: tuple[float, float] = (0.0, 0.0)
    ranks: int = 1
    temperature: float | None = None
    note: str = ""
    terms_step: int = 0

    @property
    def images_per_second(self) -> float:
        """Pairs of the last step over its duration."""
        return self.config.batch_size / self.seconds[0] if self.seconds[0] else 0.0


class Interrupted(Exception):
    """The run was asked to stop; its state is in the checkpoint."""


def train(
    config: TrainConfig,
    out: str | Path = "ckpt.pt",
    *,
    device: str = "auto",
    workers: int | None = None,
    cache_images: bool = False,
    compile: bool = False,
    download: bool = False,
    fit_batch: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    watch: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] | None = None,
    team: Team = SOLO,
) -> TrainedRun:
    """Train a two-encoder model and write its checkpoint.

    Args:
        config: What to compute, see :func:`geomkit.configure`.
        out: Checkpoint, written at every evaluation.
        device: ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``.
        workers: Processes that decode images; default: one per core, none for images in memory.
        cache_images: Whether to decode and resize all images once, into one file of the cache.
        compile: Whether to run the model through ``torch.compile``.
        download: Whether a pretrained model may be downloaded.
        fit_batch: Whether to shrink the batch size to the data set if that is smaller.
        resume: Whether to continue from ``out`` if it exists; a finished run is left as it is.
        overwrite: Whether to replace ``out`` if it exists.
        watch: Function called at the start, after each step, after each evaluation and at the end.
        should_stop: Function called after each step; if it returns true (on any rank), the state
            is saved and the run ends.
        progress: Function called with the images prepared so far and in all, while the data set
            is prepared.
        team: Ranks that share each batch. Every rank calls this function with the same arguments;
            the first one reads and writes ``out``.

    Returns:
        The content of the checkpoint: weights, history and configuration. On other ranks than the
        first one, without history.

    Raises:
        GeomkitError: For a configuration that does not fit the data or this machine, an existing
            ``out`` without ``resume`` or ``overwrite``, an ``out`` that another process writes,
            another configuration or other data than those of the run being resumed, too many images
            that do not decode, or a loss that is not finite.
        Interrupted: If ``should_stop`` returned true.

    >>> import tempfile
    >>> from geomkit import configure
    >>> config = configure(loss="cua", dim=3, pairs=16, batch_size=8, steps=2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = train(config, Path(folder) / "ckpt.pt")
    >>> run.step, [record.step for record in run.history], run.snapshots[-1].image.shape
    (2, [0, 2], torch.Size([16, 3]))
    """
    out = Path(out)
    if not 0 <= (workers or 0) <= MAX_WORKERS:
        raise GeomkitError(f"workers: expected 0 to {MAX_WORKERS:,}, got {workers}")
    device = resolve_device(device)
    use_device(device)
    threads_before = torch.get_num_threads()
    cuda = [torch.device(device).index or 0] if device.startswith("cuda") else []

    def begin() -> TrainedRun | None:
        check_target(out, overwrite=True)
        held.enter_context(sole_writer(out))
        return stored_run(out, resume=resume, overwrite=overwrite)

    try:
        with ExitStack() as held, torch.random.fork_rng(devices=cuda):
            stored = team.first(begin)  # the others may not see its disk
            run = prepare(
                config, out, stored,
                device=device, team=team, cache_images=cache_images, download=download,
                fit_batch=fit_batch, progress=progress,
            )  # fmt: skip
            if stored is not None and stored.step >= run.config.steps:
                note = "already finished"
                watch(Event("end", stored.step, run.config, device, {}, note=note))
                return stored
            if team.size > 1:
                team.check_same(run.marks)
            torch.set_num_threads(run.config.threads)
            with numerics(run.config.precision):
                return _loop(run, out, workers, compile, watch, should_stop, team)
    finally:
        torch.set_num_threads(threads_before)


def _loop(
    run: Run,
    out: Path,
    workers: int | None,
    compile: bool,
    watch: Callable[[Event], None],
    should_stop: Callable[[], bool],
    team: Team,
) -> TrainedRun:
    config, device, stored, model = run.config, run.device, run.stored, run.start.model
    alone, cuda = team.size == 1, device.startswith("cuda")
    step, history, snapshots = 0, [], []
    model.train()
    log_scale = model.get_parameter("clip.logit_scale")
    weights = [w for w in model.parameters() if w.requires_grad]
    optimizer = optimizer_for(model, config)
    if stored is not None:
        step, history, snapshots = stored.step, stored.history, stored.snapshots
        optimizer.load_state_dict(stored.optimizer)
        torch.set_rng_state(stored.rng["cpu"])
        if cuda and stored.rng["cuda"]:
            torch.cuda.set_rng_state(stored.rng["cuda"][0], device)
        for loaded in (stored.state_dict, stored.optimizer):  # not to be held all run
            loaded.clear()
    if team.rank:  # what a model draws at random must differ between ranks
        torch.manual_seed(hash((config.seed, step, team.rank)))
    if config.accumulate > 1 and _normalises_batches(model):
        raise GeomkitError(
            "--accumulate: batch normalisation would have the statistics of each part; give 1, or "
            "freeze its encoder with --freeze image or --lock image"
        )
    network = _network(model, device, compile=compile, alone=alone)
    criterion = ContrastiveLoss(config.loss, global_batch=not alone)

    eval_tokens = run.start.tokenizer.encode(run.held_out.names)
    eval_images = image_batches(run.held_out, team, device=device, workers=workers, keep=True)
    evaluations = set(evaluation_steps(config))
    terms: dict[str, float] = {}
    terms_step = 0
    temperature: float | None = None
    bad: dict[int, Bad] = {}
    stopping = settled = False

    def state() -> TrainedRun:
        return TrainedRun(
            state_dict=model.clip.state_dict(),
            optimizer=optimizer.state_dict(),
            epoch=step // run.order.steps_per_epoch,
            step=step,
            rng={
                "cpu": torch.get_rng_state(),
                "cuda": [torch.cuda.get_rng_state(device)] if cuda else [],
            },
            model_config=run.start.model_config,
            preprocess=run.start.preprocess,
            tokenizer=run.start.tokenizer,
            loss=str(criterion.spec),
            config=asdict(config),
            data=run.description,
            ranks=team.size,
            history=history,
            snapshots=snapshots,
            versions=versions(),
        )

    def report(kind: str, **what: Any) -> None:
        watch(
            Event(kind, step, config, device, terms, ranks=team.size, terms_step=terms_step, **what)
        )

    def pause(*, evaluating: bool) -> None:
        """Evaluate if it is time, and save: all ranks encode, the first one measures and writes.

        A finite loss can have a gradient that is not: it would spoil the weights unseen.
        """
        check_finite(step, model, optimizer, out=out)
        record = None
        if evaluating:
            image, text = embed_held_out(run, eval_tokens, eval_images, team=team)
            if team.rank == 0:
                lr = learning_rate(config, max(0, step - 1))
                record = evaluate(run, image, text, step=step, lr=lr, terms=terms)
                history.append(record)
                if config.dim <= 3:
                    snapshots.append(snapshot(image, text, step=step))
        if team.rank == 0:
            save_run(out, state())
            if record is not None:
                report("evaluation", record=record, temperature=record.temperature)
        team.meet()  # no rank continues before it is written

    def skip(new: list[Bad]) -> None:
        """Report images that do not decode, on whichever rank, and refuse too many."""
        for image in new:
            if image.row not in bad:
                bad[image.row] = image
                report("bad", note=f"image {image.id} {image.reason}; another image replaces it")
        if new:
            run.data.check_bad(list(bad.values()))

    def take(at: int, names: list[str], reading: Reading, new: list[Bad]) -> None:
        """Take over what was read of a step, which is the same on all ranks."""
        nonlocal terms, terms_step, temperature, stopping
        values, flags = (found := reading())[: len(names)], found[len(names) :]
        terms, terms_step = finite_terms(at, names, values, out=out), at
        temperature = terms.pop(_TAU)
        if flags:
            stopping = stopping or flags[0] > 0
            if flags[1] > 0:
                skip([image for part in team.gather(new) for image in part])

    report("start", note=_describe(run))
    if stored is None:
        pause(evaluating=True)
    pending: tuple[int, list[str], Reading, list[Bad]] | None = None
    clock = time.perf_counter()

    for batch in batches(
        run.data,
        run.order.shares(range(step, config.steps)),
        rows_of=attrgetter("rows"),
        instead=partial(replacement, run.order),
        tokens_of=caption_tokens(run),
        workers=workers,
        pin=cuda,
    ):
        waited = time.perf_counter() - clock
        new = [image for image in batch.bad if image.row not in bad]
        if alone:
            skip(new)
        if len(batch.rows) < config.batch_size // team.size:
            raise GeomkitError(
                f"'{run.data.spec}': image {batch.bad[0].id} {batch.bad[0].reason}, and no other "
                "can replace it; fix it or give a smaller --batch-size"
            )
        assert batch.tokens is not None
        pixels = model.pixels(batch.images, run.start.preprocess)
        tokens = model.tokens(batch.tokens)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        scheduled = scheduled_log_scale(config, step)
        if scheduled is not None:
            with torch.no_grad():
                log_scale.fill_(scheduled)

        compute = partial(
            backward, network, criterion, pixels, tokens,
            device=device, precision=config.precision, chunks=config.accumulate,
        )  # fmt: skip
        if not (alone or settled):
            settle(network, compute, device=device)
            settled = True
        optimizer.zero_grad(set_to_none=True)
        parts = compute()
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(weights, config.clip_norm)
        loss = next(iter(parts.values()))
        values = torch.stack([*parts.values(), torch.exp(-log_scale).to(loss.dtype)]).detach()
        if not alone:  # the mean over ranks, whether one is to stop, and whether one has bad images
            flags = values.new_tensor([float(should_stop()), float(bool(new))])
            values = torch.cat([values, flags])
            dist.all_reduce(values)
            values /= team.size
        # On a CPU the loss is read before it can spoil the weights; on CUDA one step late, so that
        # the device never waits: the weights are then spoilt, but not saved, and the last good
        # checkpoint stays.
        read, pending = pending, (step + 1, [*parts, _TAU], start_reading(values), new)
        if not cuda:
            read, pending = pending, None
        if read is not None:
            take(*read)
        optimizer.step()
        if config.learn_temperature:
            with torch.no_grad():
                log_scale.clamp_(0.0, MAX_LOG_SCALE)
        step += 1

        now = time.perf_counter()
        seconds, clock = (now - clock, waited), now
        report("step", seconds=seconds, temperature=temperature)
        if alone:
            stopping = should_stop()
        stopping = stopping and step < config.steps
        if step in evaluations or stopping:
            if pending is not None:
                take(*pending)
                pending = None
            pause(evaluating=step in evaluations)
            clock = time.perf_counter()
        if stopping and step < config.steps:
            raise Interrupted(
                f"stopped at step {step} of {config.steps}; {out} is saved; "
                "continue with the same command and --resume"
            )

    report("end", record=history[-1] if history else None)
    return load_run(out) if team.rank == 0 else state()


def _network(model: nn.Module, device: str, *, compile: bool, alone: bool) -> nn.Module:
    if not alone and _normalises_batches(model):
        if not device.startswith("cuda"):
            raise GeomkitError(
                "batch normalisation over several ranks needs CUDA; train on one process, or "
                "freeze its encoder with --freeze image or --lock image"
            )
        # Statistics of the global batch, as for every term of the loss.
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    network: nn.Module = torch.compile(model) if compile else model  # type: ignore[assignment]
    if alone:
        return network
    # Later versions renamed the option. The buffers are constants, or equal on all ranks already.
    known = inspect.signature(nn.parallel.DistributedDataParallel.__init__).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {sync: False}
    return nn.parallel.DistributedDataParallel(
        network,
        device_ids=[torch.device(device)] if device.startswith("cuda") else None,
        gradient_as_bucket_view=True,
        **options,
    )


def _normalises_batches(model: nn.Module) -> bool:
    """Whether a trained layer computes with the statistics of its batch."""
    return any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm)
        and any(weight.requires_grad for weight in layer.parameters())
        for layer in model.modules()
    )


def _describe(run: Run) -> str:
    data, held_out = run.data, run.held_out
    where = "the same pairs" if held_out is data else f"{len(held_out)} held-out pairs"
    note = f" ({data.remarks})" if data.remarks else ""
    assumed = "".join(f"; {text}" for text in run.start.notes)
    return f"{len(data)} pairs of '{data.spec}'{note}, evaluated on {where}{assumed}"
