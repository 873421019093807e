"""``geomkit data``."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

from geomkit.errors import GeomkitError

from . import console
from .options import DataOptions, Overwrite, Workers, within
from .progress import Display

if TYPE_CHECKING:
    from geomkit.data import PairData

__all__ = ["data"]


def data(
    spec: str | None = None,
    *,
    out: Path | None = None,
    size: Annotated[int, within(1, 4096)] = 72,
    seed: Annotated[int, within(0, math.inf)] = 0,
    overwrite: Overwrite = False,
    check: bool = False,
    workers: Workers = None,
    options: DataOptions,
) -> None:
    """List the data sets, or show one: counts, licence, attribution, a sheet of samples.

    Args:
        spec: DATA spec; without one the data sets are listed.
        out (--out, -o): Draw 64 samples here, as .png, .pdf or .svg.
        size: Side of the images in px.
        seed: Random seed for the choice of samples.
        overwrite: Whether to replace the figure.
        check: Decode every image and list those that fail.
        workers: Threads that decode for --check.
        options: Options that complete the DATA spec.

    Examples:
        $ geomkit data
        $ geomkit data coco:/data/coco
    """
    from geomkit.data import datasets, load_data, parse_spec

    if spec is None:
        _list()
        return
    spec = options.complete(spec)
    dataset = datasets()[parse_spec(spec).name]
    if out is not None:
        from geomkit.plots import check_figure_path

        check_figure_path(out, overwrite=overwrite)

    with Display() as display:
        whole = load_data(spec, split="all", size=size, progress=display.preparing)
    console.words(f"data set:    {spec} ({dataset.help})", indent=13)
    of = f" of {whole.given:,} given" if whole.left_out else ""
    splits = _splits(spec, size, dataset.splits)
    console.words(f"images:      {len(whole):,}{of}, {size} px; {splits}", indent=13)
    captions = sum(map(len, whole.captions))
    first = ", ".join(shorten(name, 200, placeholder=" …") for name in whole.names[:5])
    console.words(f"captions:    {captions:,}; first: {first}", indent=13)
    for label, text in [
        ("read as", whole.reading),
        ("note", whole.note),
        ("left out", "; ".join(map(str, whole.left_out))),
        ("source", whole.source),
        ("licence", whole.licence),
        ("attribution", whole.attribution),
        ("sha256", whole.fingerprint["sha256"]),
    ]:
        if text:
            console.words(f"{label + ':':<12} {text}", indent=13)
    if out is not None:
        from geomkit._core.files import sole_writer
        from geomkit.plots import contact_sheet, save_figure

        with sole_writer(out):
            save_figure(contact_sheet(_samples(whole, seed), seed=seed), out, overwrite=overwrite)
        console.out(f"sheet:       {out}")
    if check:
        _check(whole, workers)


def _list() -> None:
    from geomkit.data import datasets

    for kind, use in (
        ("pairs", "Image-caption pairs, for every command but those below"),
        ("classes", "Labelled images, for zeroshot and probe"),
        ("queries", "Queries, for arithmetic"),
    ):
        console.out(f"{use}:")
        for dataset in datasets(kind).values():
            console.words(f"{dataset.spec}: {dataset.help}", indent=2)
            if dataset.all_options:
                console.words(f"  options: {', '.join(dataset.all_options)}", indent=4)
            console.out(f"  splits: {', '.join(dataset.splits)}")
            if dataset.attribution:
                console.words(f"  {dataset.attribution}", indent=4)


def _splits(spec: str, size: int, names: tuple[str, ...]) -> str:
    """The count of each split, or why there is none."""
    from geomkit.data import load_data

    counts = []
    for name in names:
        if name == "all":
            continue
        try:
            part = load_data(spec, split=name, size=size)
        except GeomkitError:
            counts.append(f"no {name}")
            continue
        captions = sum(map(len, part.captions))
        counts.append(f"{name} {len(part):,} with {captions:,} captions")
    return ", ".join(counts)


def _samples(data: PairData, seed: int, count: int = 64) -> PairData:
    """Images for the sheet, decoded; those that do not decode are left out."""
    from dataclasses import replace

    import numpy as np

    rows = np.sort(np.random.default_rng(seed).permutation(len(data))[:count])
    pixels, kept, bad = data.read(rows)
    if not len(kept):
        data.check_bad(bad)
    return replace(data.take(kept), images=pixels, index=np.arange(len(kept)))


def _check(data: PairData, workers: int | None) -> None:
    """Decode every image; an error if more are bad than the data set allows."""
    import numpy as np

    from geomkit._core.parallel import cores

    # Threads, since Pillow decodes without Python's lock, and torch with its workers is large.
    jobs: list[Any] = [np.arange(i, min(i + 64, len(data))) for i in range(0, len(data), 64)]
    bad = []
    with ThreadPoolExecutor(max(1, cores() if workers is None else workers)) as pool:
        for done, some in enumerate(pool.map(lambda rows: data.read(rows)[2], jobs), 1):
            bad += some
            for image in some:
                console.out(f"bad:         {image.id}: {image.reason}")
            if done % 100 == 0 or done == len(jobs):
                console.line(f"decoded {jobs[done - 1][-1] + 1:,} of {len(data):,}")
    console.out(f"checked:     {len(data):,} images, {len(bad)} bad")
    data.check_bad(bad)
