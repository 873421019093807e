"""``geomkit export``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from geomkit._core.choices import PROJECTIONS
from geomkit.errors import unknown_name

from . import console
from .many import for_rows, load_one, originals
from .options import ModelOptions, Overwrite, one_of, within

__all__ = ["export"]

_KINDS = ("parquet",)
_MANY = 10_000_000_000
"""Pairs of rows whose comparison takes minutes."""


def export(
    source: Annotated[
        str, typer.Argument(help="A checkpoint, a model (with --data) or embeddings.")
    ],
    *,
    to: Annotated[str, one_of(*_KINDS)] = "parquet",
    out: Annotated[Path, typer.Option("--out", "-o", help="Table to write.")] = Path(
        "embeddings.parquet"
    ),
    projection: Annotated[str | None, one_of(*PROJECTIONS, "none")] = None,
    neighbours: Annotated[int, within(0, 1000)] = 10,
    vectors: bool = False,
    thumbnail: Annotated[int, within(0, 96)] = 96,
    seed: Annotated[int, within(0, math.inf)] = 0,
    overwrite: Overwrite = False,
    options: ModelOptions,
) -> None:
    """Write a table with a row for each image and caption, for embedding-atlas, pandas and others.

    Columns: row, modality, pair (row of the other of the pair), id, caption, image (thumbnail),
    neighbors (nearest rows of the other modality), x and y, vector. Embeddings from a file get
    captions and images by their ids from --data. To look at it: embedding-atlas e.parquet --x x
    --y y --text caption --image image --neighbors neighbors.

    Args:
        source: What to write.
        to: Kind of table.
        out: Table to write.
        projection: Projection of both modalities together. Default: umap up to 20,000 rows, pca of
            more.
        neighbours: Number of nearest rows of the other modality, 0 to 1,000; 0 for none.
        vectors: Write the unit rows too.
        thumbnail: Largest side of the images in px, 0 to 96; 0 for no images.
        seed: Random seed of UMAP.
        overwrite: Whether to replace the table.
        options: How models become embeddings.

    Examples:
        $ geomkit export ckpt.pt --out e.parquet
        $ geomkit export emb/ --data coco:/data/coco --vectors
    """
    from geomkit._core.files import atomic_write, check_target, sole_writer

    if to not in _KINDS:
        raise unknown_name("kind of table", to, _KINDS)
    check_target(out, overwrite=overwrite)
    with sole_writer(out):
        from geomkit.reporting import export_parquet

        if projection not in (None, *PROJECTIONS, "none"):
            raise unknown_name("projection", str(projection), (*PROJECTIONS, "none"))
        embeddings, split = load_one(source, for_rows(source, options))
        found = originals(source, embeddings, split, options)
        notes = [*embeddings.meta.get("notes", ()), *found.notes]
        if neighbours and embeddings.n * embeddings.m > _MANY:
            console.line(
                f"{source}: comparing {embeddings.n:,} images with {embeddings.m:,} captions; "
                "--neighbours 0 leaves this out"
            )
        with atomic_write(out, overwrite=overwrite) as file:
            made = export_parquet(
                embeddings,
                file,
                originals=found,
                projection=projection,
                neighbours=neighbours,
                vectors=vectors,
                thumbnail=thumbnail,
                seed=seed,
                about={"source": source, "split": split, "notes": notes},
            )
    console.line(
        f"{source}: {made['images']:,} images, {made['captions']:,} captions, projection "
        f"{made['projection']}, seed {seed}"
    )
    console.wrote(out)
