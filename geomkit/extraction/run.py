"""Model + data → shards of embeddings on disk, by one process or many, killed as often as you like.

A batch never crosses the border of a shard, so the rows of a shard depend on nothing but the plan:
whatever was there before and whoever writes it, it comes out the same to the byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomkit._core.parallel import SOLO, Team
from geomkit._core.runtime import autocast, numerics, resolve_device, resolve_precision, versions
from geomkit.data import PairData
from geomkit.data.loading import batches, resolve_workers
from geomkit.data.pairs import Bad
from geomkit.embeddings.manifest import FORMAT, SCHEMA_VERSION
from geomkit.errors import GeomkitError
from geomkit.extraction.encode import Encoded, encode_pictures, encode_texts, evaluating
from geomkit.extraction.plan import bad_of, check_options, finish, prepare
from geomkit.extraction.store import find_record, shard_names, store_shard
from geomkit.models.checkpoints import Checkpoint, weights_sha256
from geomkit.models.tokenizers import Tokenizer

__all__ = ["Progress", "extract_to"]


@dataclass(frozen=True)
class Progress:
    """What an extraction tells whoever watches.

    Attributes:
        kind: ``start``, ``batch``, ``shard`` or ``end``.
        plan: what is being done, device and precision as resolved; ``None`` if nothing was left
            to do.
        total: pictures this process has to go through in this run.
        shards: how many shards there are in all.
        found: how many of them were there already.
        done: pictures this process has been through.
        images_per_second: over this run so far.
        shard: the number of the shard just written.
        record: what the shard, in the end the whole folder, holds.
    """

    kind: str
    plan: Mapping[str, Any] | None
    total: int
    shards: int
    found: int
    done: int = 0
    images_per_second: float = 0.0
    shard: int = 0
    record: Mapping[str, Any] | None = None


def extract_to(
    loaded: Checkpoint,
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
) -> dict[str, Any]:
    """Embed a data set into a folder in clip-retrieval's layout.

    ``img_emb`` has a row a picture, ``text_emb`` one a caption, ``metadata`` one a caption with
    ``id``, ``image_path`` (where it is known), ``caption`` and ``image_index``, the picture's row
    in its shard. ``manifest.json`` is written last. Pictures that do not decode are left out with
    their captions, and listed there.

    Args:
        loaded: the model; it is moved to the device, for fp64 also to that precision.
        data: pictures of the size the model takes.
        out: the folder.
        rows_per_shard: pictures a shard, the most that a kill costs.
        dtype: ``float32``, or ``float16`` (clip-retrieval's own) at half the bytes, with a
            rounding of 5e-4 relative.
        device: ``auto``, ``cpu``, ``cuda[:n]`` or ``mps``; each rank of a machine takes its own.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp64``.
        batch_size: rows at a time.
        workers: processes that decode; as many as there are cores if not given.
        resume: go on with what is there; a finished folder is left as it is.
        overwrite: start anew over an extraction; no other file is ever removed.
        watch: called at the start, after each batch and shard, and at the end.
        team: ranks that share the shards.

    Returns:
        The manifest.

    Raises:
        GeomkitError: for options out of range; if ``out`` is there without ``resume`` or
            ``overwrite``, holds anything else, or is of another configuration than the one being
            resumed; if more pictures are bad than the data set allows; if a row the model gives
            is not finite or all zeros; if something cannot be written.
    """
    out = Path(out)
    check_options(rows_per_shard, dtype, batch_size, workers, resume=resume, overwrite=overwrite)
    device = resolve_device(device)
    edges = [*range(0, len(data), rows_per_shard), len(data)]

    def first_look() -> tuple[dict[str, Any], list[int], dict[str, Any] | None]:
        plan = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "model": _described(loaded),
            "preprocess": loaded.preprocess.as_dict(),
            "tokenizer": loaded.tokenizer.as_dict(),
            "data": {
                "spec": data.spec,
                "split": data.split,
                **data.fingerprint,
                "note": data.note,
                "licence": data.licence,
                "attribution": data.attribution,
            },
            "dtype": dtype,
            "device": device.partition(":")[0],
            "precision": resolve_precision(precision, device),
            "threads": torch.get_num_threads(),
            "batch_size": batch_size,
            "rows_per_shard": rows_per_shard,
            "versions": {**versions(), **{p: metadata.version(p) for p in ("pillow", "pyarrow")}},
        }
        return prepare(
            out, plan, edges, resume=resume, overwrite=overwrite, keep_precision=precision == "auto"
        )

    plan, missing, manifest = _agreed(team, first_look)
    shards = len(edges) - 1
    if manifest is not None:
        watch(Progress("end", None, 0, shards, shards, record=manifest))
        return manifest
    wait = _meeting(team)
    mine = team.share(missing)
    total = sum(edges[k + 1] - edges[k] for k in mine)
    state = Progress("start", plan, total, shards, shards - len(missing))
    watch(state)
    if mine:
        _write_shards(_Work(loaded, data, out, plan, edges, mine, device, workers), watch, state)
    wait()
    manifest = _agreed(team, lambda: finish(out, plan, edges, data))
    watch(replace(state, kind="end", done=total, record=manifest))
    return manifest


def _described(loaded: Checkpoint) -> dict[str, Any]:
    """What identifies a model, in plain values."""
    return {
        "source": loaded.source,
        "kind": loaded.kind,
        "loss": loaded.meta.get("loss"),
        "step": loaded.meta.get("step"),
        "model_config": loaded.model_config,
        "weights_sha256": weights_sha256(loaded.model.clip.state_dict()),
    }


def _meeting(team: Team) -> Callable[[], Any]:
    """Where ranks wait for each other for as long as it takes.

    gloo's own patience ends after half an hour, and a rank may have a shard more or a slower disk.
    """
    if team.size == 1:
        return lambda: None
    import torch.distributed as dist

    group = dist.new_group(backend="gloo", timeout=timedelta(days=30))
    return partial(dist.barrier, group=group)


def _agreed(team: Team, decide: Callable[[], Any]) -> Any:
    """What the first rank finds, on every rank; what it has to refuse is refused on every rank."""
    value, problem = None, None
    if team.rank == 0:
        try:
            value = decide()
        except GeomkitError as error:
            problem = error
    value, text = team.gather((value, str(problem) if problem else None))[0]
    if text is not None:
        raise problem or GeomkitError(text)
    return value


@dataclass(frozen=True)
class _Work:
    """What one process has to do: the shards ``mine`` of a plan."""

    loaded: Checkpoint
    data: PairData
    out: Path
    plan: Mapping[str, Any]
    edges: Sequence[int]
    mine: Sequence[int]
    device: str
    workers: int | None


def _write_shards(work: _Work, watch: Callable[[Progress], None], state: Progress) -> None:
    """Encode and write this process's shards, one being written while the next is encoded."""
    count = len(work.edges) - 1
    names = [shard_names(k, count) for k in range(count)]
    bad = bad_of(filter(None, (find_record(work.out, files) for files in names)))
    double = work.plan["precision"] == "fp64"
    work.loaded.model.to(work.device, torch.float64 if double else None)
    threads, started, done = torch.get_num_threads(), time.perf_counter(), 0
    torch.set_num_threads(work.plan["threads"])
    waiting: tuple[int, Future[dict[str, Any]]] | None = None

    def moved(pictures: int) -> None:
        nonlocal done
        done += pictures
        watch(now("batch"))

    def now(kind: str, **changes: Any) -> Progress:
        speed = done / (time.perf_counter() - started)
        return replace(state, kind=kind, done=done, images_per_second=speed, **changes)

    def arrived() -> None:
        if waiting is not None:
            number, record = waiting
            watch(now("shard", shard=number, record=record.result()))

    try:
        with ThreadPoolExecutor(1) as writer, closing(_encoded(work, moved)) as stream:
            for number, encoded in zip(work.mine, stream, strict=True):
                arrived()
                span = (work.edges[number], work.edges[number + 1])
                job = partial(store_shard, work.out, names[number], work.data, span=span)
                waiting = number, writer.submit(job, encoded=encoded, dtype=work.plan["dtype"])
                bad += encoded.bad
                work.data.check_bad(bad)  # they can only become more: better now than at the end
            arrived()
    finally:
        torch.set_num_threads(threads)


def _encoded(work: _Work, moved: Callable[[int], None]) -> Generator[Encoded, None, None]:
    """The rows of one shard after the other, still on the device."""
    model, edges, size = work.loaded.model, work.edges, work.plan["batch_size"]
    jobs = {
        k: [np.arange(i, min(i + size, edges[k + 1])) for i in range(edges[k], edges[k + 1], size)]
        for k in work.mine
    }
    # One stream over all shards: the next one is decoded while this one is being finished.
    stream = batches(
        work.data,
        [job for k in work.mine for job in jobs[k]],
        tokens_of=partial(_tokens, work.data.captions, work.loaded.tokenizer),
        workers=resolve_workers(work.workers, work.data),
        pin=work.device.startswith("cuda"),
    )
    nothing = torch.empty(0, work.loaded.model_config["embed_dim"])
    precision = work.plan["precision"]
    with evaluating(model), numerics(precision), autocast(work.device, precision):
        for k in work.mine:
            image, words, rows = [], [], []
            bad: list[Bad] = []
            for _, batch in zip(jobs[k], stream, strict=False):
                if len(batch.rows):
                    assert batch.tokens is not None
                    words.append(batch.tokens)
                    image.append(
                        encode_pictures(
                            model, batch.images, work.loaded.preprocess, device=work.device
                        )
                    )
                rows.append(batch.rows)
                bad += batch.bad
                moved(len(batch.rows) + len(batch.bad))
            text = nothing
            if words:
                text = encode_texts(model, torch.cat(words), device=work.device, batch_size=size)
            yield Encoded(torch.cat(image or [nothing]), text, np.concatenate(rows), tuple(bad))


def _tokens(
    captions: Sequence[Sequence[str]], tokenizer: Tokenizer, job: Any, rows: np.ndarray
) -> torch.Tensor:
    """Token ids of all captions of the rows; in a worker, where there is one."""
    words = [caption for row in rows for caption in captions[row]]
    return tokenizer.encode(words) if words else torch.empty(0, dtype=torch.long)
