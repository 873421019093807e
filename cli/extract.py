"""``geomkit extract``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console
from .options import Precision, Workers
from .progress import Display

if TYPE_CHECKING:
    from geomkit.extraction.run import Progress

__all__ = ["extract"]


def extract(
    source: Annotated[
        str,
        typer.Argument(
            help="A model: a geomkit checkpoint, open_clip:NAME/TAG_OR_PATH, hf:DIR, openai:FILE "
            "or paper:FILE."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of embeddings.")],
    data: Annotated[
        str | None,
        typer.Option(help="DATA spec; for a geomkit checkpoint by default what it was trained on."),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val, test or all.")] = "val",
    dtype: Annotated[
        str,
        typer.Option(
            help="float32, exact; or float16 as clip-retrieval writes it: half the bytes, and "
            "metrics that agree to about 2e-3, but for a rank that moves by one."
        ),
    ] = "float32",
    shard_rows: Annotated[
        int, typer.Option(help="Pictures a shard: the most that a kill costs.")
    ] = 10_000,
    batch_size: Annotated[int, typer.Option(help="Rows at a time.")] = 256,
    workers: Workers = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda[:n] or mps; under torchrun each rank its own.")
    ] = "auto",
    precision: Precision = "auto",
    max_bad: Annotated[
        float | None, typer.Option(help="Largest share of pictures that may fail to decode.")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="For csv: the column that names the picture.")
    ] = None,
    caption_column: Annotated[
        str | None, typer.Option(help="For csv: the column that holds the caption.")
    ] = None,
    cache_images: Annotated[
        bool, typer.Option("--cache-images", help="Keep decoded pictures for the next run.")
    ] = False,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the model's files if they are not here.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --out at the first missing shard.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew over --out.")] = False,
) -> int:
    """Embed a data set into a folder of shards that gap and clip-retrieval's tools read.

    Killed and run again with --resume it goes on at the first missing shard, and ends with the
    same bytes. Under torchrun the ranks share the shards.
    """
    from geomkit._core.parallel import Team
    from geomkit.errors import GeomkitError
    from geomkit.extraction.plan import check_options, check_out

    check_options(shard_rows, dtype, batch_size, workers, resume=resume, overwrite=overwrite)
    if os.environ.get("RANK", "0") == "0":  # the others might see what the first one makes
        check_out(out, resume=resume, overwrite=overwrite)
    console.line("geomkit: loading torch and open_clip …") if console.interactive() else None
    from geomkit.data import load_data, with_options
    from geomkit.extraction.run import extract_to
    from geomkit.sources import open_source

    loaded = open_source(source, download=download)
    trained_on: dict[str, Any] = loaded.meta.get("data") or {}
    spec = data or trained_on.get("spec")
    if spec is None:
        raise GeomkitError(f"{source}: --data: needed for a model that geomkit has not trained")
    named = {"max_bad": max_bad, "image_column": image_column, "caption_column": caption_column}
    team = Team.from_environment()
    try:
        with _Watcher(quiet=team.rank > 0) as watcher:
            pairs = load_data(
                with_options(spec, **named),
                split=split,
                preprocess=loaded.preprocess,
                n=trained_on.get("n") if data is None and split == "train" else None,
                progress=watcher.preparing,
                cache_images=cache_images,
                workers=workers,
            )
            if pairs.note:
                watcher.log(pairs.note)
            watcher.about = f"{len(pairs):,} pictures of '{pairs.spec}' ({split})"
            extract_to(
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
        console.line(f"geomkit: interrupted; {out} keeps its finished shards, --resume goes on")
        return 130
    finally:
        team.close()
    if team.rank == 0:
        typer.echo(out)
    return 0


class _Watcher(Display):
    """A bar on a terminal, a line per shard elsewhere."""

    about = ""

    def __call__(self, progress: Progress) -> None:
        if progress.kind == "start":
            self._start(progress)
        elif progress.kind == "end":
            self._end(progress)
        elif self.progress:
            speed = f"{progress.images_per_second:,.0f} images/s"
            self.show("encoding", progress.done, progress.total, speed)
        elif progress.kind == "shard" and progress.record is not None:
            record = progress.record
            self.log(
                f"shard {progress.shard} of 0–{progress.shards - 1}: {record['images']:,} images, "
                f"{record['texts']:,} texts"
                + (f", {len(record['bad'])} bad" if record["bad"] else "")
                + f"  {progress.images_per_second:,.0f} images/s"
            )

    def _start(self, progress: Progress) -> None:
        plan = progress.plan or {}
        there = f", {progress.found} of them there already" if progress.found else ""
        self.log(
            f"{self.about} in {progress.shards} shards{there}; {plan['dtype']}, computed in "
            f"{plan['precision']} on {plan['device']}"
            + (
                f", {plan['threads']} thread{'s'[: plan['threads'] > 1]}"
                if plan["device"] == "cpu"
                else ""
            )
        )
        self.show("encoding", 0, progress.total)

    def _end(self, progress: Progress) -> None:
        record = progress.record or {}
        if progress.plan is None:
            self.log("already finished; nothing to do")
            return
        bad = record["bad"]
        if bad:
            rest = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            self.log(
                f"left out, with their captions: {bad[0]['id']}, which "
                f"{bad[0]['reason']}{rest}; manifest.json lists them"
            )
        self.log(f"{record['images']:,} images, {record['texts']:,} texts in {self.seconds:.0f} s")
