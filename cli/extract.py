"""``geomkit extract``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geomkit.embeddings.manifest import cut_captions
from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.kinds import model_forms

from . import console, options
from .many import says_data
from .progress import Display
from .ranks import joined

if TYPE_CHECKING:
    from geomkit.extraction import Progress

__all__ = ["extract"]


def extract(
    source: Annotated[
        str,
        typer.Argument(help=f"Model: a geomkit checkpoint, {model_forms(' or ')}."),
    ],
    *,
    out: Path,
    data: str | None = None,
    split: str = "val",
    dtype: str = "float32",
    shard_rows: int = 10_000,
    batch_size: int = 256,
    workers: options.Workers = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    given: options.DataOptions,
    cache_images: options.CacheImages = False,
    download: options.Download = False,
    trust_data: options.TrustData = False,
    close: options.Close = None,
    resume: bool = False,
    overwrite: options.Overwrite = False,
) -> int:
    """Embed a data set into a folder of shards that gap and clip-retrieval's tools read.

    A run that was killed continues with --resume at the first missing shard, and ends with the same
    bytes. Under torchrun the ranks share the shards, each on its own device.

    Args:
        source: Model.
        out (--out, -o): Folder to write embeddings to.
        data: DATA spec; default for a geomkit checkpoint: its training data.
        split: train, val, test or all.
        dtype: Number type of the stored rows: float32, or float16 at half the size (metrics agree
            to about 2e-3, retrieval ranks to about one place).
        shard_rows: Images per shard: the most that is lost when killed.
        batch_size: Images, and captions, per forward pass.
        workers: Processes.
        device: Device.
        precision: Precision.
        given: Options that complete the DATA spec.
        cache_images: Whether to cache images.
        download: Whether to download weights.
        trust_data: Whether data that a checkpoint names may lie outside its folder.
        close: Intervention.
        resume: Continue in --out at the first missing shard.
        overwrite: Whether to replace the folder.

    Examples:
        $ geomkit extract ckpt.pt --out emb/
        $ geomkit extract ckpt.pt --data coco:/data/coco --split val --out emb/
    """
    from geomkit.data import find_data, load_data
    from geomkit.extraction.store import check_folder, check_options

    try:
        with joined(device) as team, _Watcher() as watcher:
            check_options(
                shard_rows, dtype, batch_size, workers, resume=resume, overwrite=overwrite
            )
            if team.rank == 0:  # the others might see what the first one makes
                check_folder(out, resume=resume, overwrite=overwrite)
            if data is not None:
                find_data(given.complete(data))
            team.meet()  # what is wrong with the data of one rank ends all, before a long import
            from geomkit import extraction
            from geomkit.interventions.applying import close_model
            from geomkit.sources import open_source, own_data

            loaded = close_model(open_source(source, download=download), close)
            console.notes(source, loaded.notes)
            trained_on: dict[str, Any] = loaded.meta.get("data") or {}
            spec = data or own_data(loaded, trust=trust_data)
            if spec is None:
                raise GeomkitError(
                    f"{source}: needs --data, since geomkit has not trained this model"
                )
            if data is None:
                says_data(source)(spec)
            pairs = load_data(
                given.complete(spec),
                split=split,
                preprocess=loaded.preprocess,
                n=trained_on.get("n") if data is None and split == "train" else None,
                progress=watcher.preparing,
                cache_images=cache_images,
                workers=workers,
            )
            if pairs.remarks:
                watcher.log(pairs.remarks)
            watcher.about = f"{len(pairs):,} images of '{pairs.spec}' ({split})"
            extraction.extract(
                loaded,
                pairs,
                out,
                rows_per_shard=shard_rows,
                dtype=dtype,
                device=device,
                precision=precision,
                batch_size=batch_size,
                workers=workers,
                resume=resume,
                overwrite=overwrite,
                watch=watcher,
                team=team,
            )
    except KeyboardInterrupt:
        console.line(f"geomkit: interrupted; {out} keeps its finished shards, --resume continues")
        return 130
    if team.rank == 0:
        console.wrote(out)
    return 0


class _Watcher(Display):
    """A bar on a terminal, a line per shard elsewhere."""

    about = ""

    def __call__(self, progress: Progress) -> None:
        plan, record, held = progress.plan, progress.record, progress.manifest
        speed = f"{progress.images_per_second:,.0f} images/s"
        if plan is None:
            self.log("already finished; nothing to do")
        elif progress.kind == "start":
            there = f", {progress.found} of them there already" if progress.found else ""
            threads = f", {plan.threads} thread{'s'[: plan.threads > 1]}"
            shards = f"{progress.shards} shard{'s' * (progress.shards > 1)}"
            self.log(
                f"{self.about} in {shards}{there}; {plan.dtype}, computed in "
                f"{plan.precision} on {plan.device}{threads if plan.device == 'cpu' else ''}"
            )
            self.show("encoding", 0, progress.total)
        elif held is not None:
            if held.bad:
                first, rest = held.bad[0], len(held.bad) - 1
                more = f" and {rest} more" if rest else ""
                self.log(
                    f"left out, with their captions: {first.id}, which {first.reason}{more}; "
                    "manifest.json lists them"
                )
            for line in cut_captions(held.cut):
                self.log(line)
            self.log(f"{held.images:,} images, {held.texts:,} texts in {self.seconds:.0f} s")
        elif self.progress:
            self.show("encoding", progress.done, progress.total, speed)
        elif record is not None and progress.shards > 1:
            bad = f", {len(record.bad)} bad" if record.bad else ""
            self.log(
                f"shard {progress.shard + 1} of {progress.shards}: {record.images:,} images, "
                f"{record.texts:,} texts{bad}  {speed}"
            )
