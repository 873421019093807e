"""Model + data → shards of embeddings on disk, resumable, by one process or many.

A batch never crosses the border of a shard, so the rows of a shard depend on the plan alone:
whatever was there before and whichever rank writes it, its bytes are the same.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomkit._core.files import sole_writer
from geomkit._core.parallel import SOLO, Team
from geomkit._core.runtime import resolve_device, resolve_precision, versions
from geomkit.data import PairData
from geomkit.data.loading import Batch, batches
from geomkit.data.pairs import Bad
from geomkit.extraction.encode import blocks, encode_batches, evaluating
from geomkit.extraction.store import (
    PLAN,
    Manifest,
    Plan,
    ShardFolder,
    ShardRecord,
    check_options,
    finish,
    prepare,
)
from geomkit.models.checkpoints import Checkpoint, weights_sha256
from geomkit.models.tokenizers import Tokenizer

__all__ = ["Progress", "extract"]


@dataclass(frozen=True)
class Progress:
    """How far an extraction is.

    Attributes:
        kind: ``start``, ``batch``, ``shard`` or ``end``.
        plan: What is being done, with device and precision resolved; ``None`` if nothing was left
            to do.
        total: Images this process has to encode in this run.
        shards: Number of shards in all.
        found: Number of shards that were there already.
        done: Images this process has encoded.
        images_per_second: Mean rate of this run so far.
        shard: Number of the shard just written.
        record: What that shard holds.
        manifest: What the folder holds, at the end.
    """

    kind: str
    plan: Plan | None
    total: int
    shards: int
    found: int
    done: int = 0
    images_per_second: float = 0.0
    shard: int = 0
    record: ShardRecord | None = None
    manifest: Manifest | None = None


def extract(
    checkpoint: Checkpoint,
    data: PairData,
    out: str | Path,
    *,
    rows_per_shard: int = 10_000,
    dtype: str = "float32",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 256,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watch: Callable[[Progress], None] = lambda progress: None,
    team: Team = SOLO,
) -> Manifest:
    """Write the embeddings of a data set into a folder in clip-retrieval's layout.

    ``img_emb`` has one row per image, ``text_emb`` one per caption, ``metadata`` one per caption
    with ``id``, ``image_path`` (where it is known), ``caption`` and ``image_index``, the row of the
    image in its shard. ``manifest.json`` is written last. Images that do not decode are left out
    with their captions, and listed there. For a small data set,
    :func:`geomkit.extraction.embed` returns the embeddings in memory.

    Args:
        checkpoint: Model with its preprocessing and tokenizer; it is moved to the device, for fp64
            also to that precision.
        data: ``n`` images of the size the model takes, with ``m`` captions.
        out: Path of the folder.
        rows_per_shard: Images per shard: the most that is lost when the process is killed.
        dtype: ``float32``, or ``float16`` (clip-retrieval's own) at half the bytes, with a relative
            rounding error of 5e-4.
        device: ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``; each rank on a machine takes its own.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp64``.
        batch_size: Images, and captions, per forward pass.
        workers: Number of processes that decode images; default: one per core.
        resume: Whether to continue an extraction; a finished folder is left as it is.
        overwrite: Whether to replace an extraction; no other file is ever removed.
        watch: Function called at the start, after each batch and shard, and at the end.
        team: Ranks that share the shards.

    Returns:
        What the folder holds.

    Raises:
        GeomkitError: For options out of range; if another process writes ``out``; if ``out`` exists
            without ``resume`` or ``overwrite``, holds anything else, or has another configuration
            than the one to be resumed; if more images do not decode than the data set allows; if a
            row the model computes is not finite or all zeros; if something cannot be written.

    Example:
        >>> import tempfile
        >>> from geomkit.data import load_data
        >>> from geomkit.models.preprocess import Preprocess
        >>> from geomkit.models import build, model_config
        >>> config = model_config("nano", dim=3)
        >>> parts = Preprocess.for_model(config), Tokenizer.for_model(config)
        >>> fresh = Checkpoint(build(config), "geomkit", "fresh", config, *parts)
        >>> data = load_data(n=4, preprocess=fresh.preprocess)
        >>> manifest = extract(fresh, data, tempfile.mkdtemp(), rows_per_shard=3, device="cpu")
        >>> manifest.images, len(manifest.shards)
        (4, 2)
    """
    check_options(rows_per_shard, dtype, batch_size, workers, resume=resume, overwrite=overwrite)
    device = resolve_device(device)
    folder = ShardFolder(Path(out), (*range(0, len(data), rows_per_shard), len(data)))

    def first_look() -> tuple[Plan, list[ShardRecord | None], Manifest | None]:
        plan = Plan(
            model={
                "source": checkpoint.source,
                "kind": checkpoint.kind,
                "loss": checkpoint.meta.get("loss"),
                "step": checkpoint.meta.get("step"),
                "model_config": checkpoint.model_config,
                "weights_sha256": weights_sha256(checkpoint.model.clip.state_dict()),
                "notes": checkpoint.notes,
                **{k: v for k, v in checkpoint.meta.items() if k == "closed_by"},
            },
            preprocess=checkpoint.preprocess.as_dict(),
            tokenizer=checkpoint.tokenizer.as_dict(),
            data={
                "spec": data.spec,
                "split": data.split,
                **data.fingerprint,
                "lengths_and_times": data.state(copied=True),
                **data.account(),
                "note": data.note,
                "licence": data.licence,
                "attribution": data.attribution,
            },
            dtype=dtype,
            device=device.partition(":")[0],
            precision=resolve_precision(precision, device),
            threads=torch.get_num_threads(),
            batch_size=batch_size,
            rows_per_shard=rows_per_shard,
            versions={**versions(), **{p: metadata.version(p) for p in ("pillow", "pyarrow")}},
        )
        keep = precision == "auto"
        return prepare(folder, plan, resume=resume, overwrite=overwrite, keep_precision=keep)

    def hold() -> None:
        held.enter_context(sole_writer(folder.path))

    with ExitStack() as held:
        team.first(hold)
        plan, records, manifest = team.first(first_look)
        if team.size > 1:
            model = weights_sha256(checkpoint.model.clip.state_dict())
            shared = {f"folder '{out}'": _content(folder.path / PLAN)}
            team.check_same({"model": model, **data.marks, **shared})
        if manifest is not None:
            watch(Progress("end", None, 0, len(folder), len(folder), manifest=manifest))
            return manifest
        mine = team.share([number for number, record in enumerate(records) if record is None])
        bad = [entry for record in records if record is not None for entry in record.bad]
        work = _Work(checkpoint, data, folder, plan, bad, mine, device, workers)
        total = sum(stop - first for first, stop in map(folder.span, mine))
        found = len(records) - records.count(None)
        state = Progress("start", plan, total, len(folder), found)
        watch(state)
        if mine:
            _write_shards(work, watch, state)
        team.meet()
        manifest = team.first(lambda: finish(folder, plan, data))
        watch(replace(state, kind="end", done=total, manifest=manifest))
        return manifest


def _content(path: Path) -> str:
    """A hash of a file that the first rank has written, by which the others know it."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "none"


@dataclass(frozen=True)
class _Work:
    """What one process has to do: the shards ``mine``; the others lack the images ``bad``."""

    checkpoint: Checkpoint
    data: PairData
    folder: ShardFolder
    plan: Plan
    bad: Sequence[Bad]
    mine: Sequence[int]
    device: str
    workers: int | None


def _write_shards(work: _Work, watch: Callable[[Progress], None], state: Progress) -> None:
    """Encode and write this process's shards, one being written while the next is encoded."""
    plan, bad, done, cut = work.plan, list(work.bad), 0, 0
    model, preprocess = work.checkpoint.model, work.checkpoint.preprocess
    tokenizer = work.checkpoint.tokenizer
    model.to(work.device, torch.float64 if plan.precision == "fp64" else None)
    threads, started = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(plan.threads)
    waiting: tuple[int, Future[ShardRecord]] | None = None

    def report(kind: str, **changes: Any) -> None:
        speed = done / (time.perf_counter() - started)
        watch(replace(state, kind=kind, done=done, images_per_second=speed, **changes))

    def seen(batch: Batch) -> None:
        nonlocal done, cut
        done += len(batch.rows) + len(batch.bad)
        if batch.tokens is not None and len(batch.tokens):
            cut += len(tokenizer.cut(_words(work.data.captions, batch.rows), batch.tokens))
        report("batch")

    def arrived() -> None:
        if waiting is not None:
            report("shard", shard=waiting[0], record=waiting[1].result())

    jobs = [blocks(*work.folder.span(number), plan.batch_size) for number in work.mine]
    # One stream over all shards: the next one is decoded while this one is being finished.
    stream = batches(
        work.data,
        [job for shard in jobs for job in shard],
        tokens_of=partial(_tokens, work.data.captions, tokenizer),
        workers=work.workers,
        pin=work.device.startswith("cuda"),
    )
    options = {"batch_size": plan.batch_size, "dim": work.checkpoint.model_config["embed_dim"]}
    evaluation = evaluating(model, device=work.device, precision=plan.precision)
    try:
        with ThreadPoolExecutor(1) as writer, evaluation:
            for number, shard in zip(work.mine, jobs, strict=True):
                part, cut = islice(stream, len(shard)), 0
                encoded = encode_batches(model, part, preprocess, **options, seen=seen)
                arrived()
                how: dict[str, Any] = {"dtype": plan.dtype, "cut": cut}
                job = partial(work.folder.write, number, work.data, encoded, **how)
                waiting = number, writer.submit(job)
                bad += encoded.bad
                work.data.check_bad(bad)  # they can only become more: better now than at the end
            arrived()
    finally:
        torch.set_num_threads(threads)


def _tokens(
    captions: Sequence[Sequence[str]], tokenizer: Tokenizer, job: Any, rows: np.ndarray
) -> torch.Tensor:
    """Token ids of all captions of the rows; in a worker, where there is one."""
    words = _words(captions, rows)
    return tokenizer.encode(words) if words else torch.empty(0, dtype=torch.long)


def _words(captions: Sequence[Sequence[str]], rows: np.ndarray) -> list[str]:
    return [caption for row in rows for caption in captions[row]]
