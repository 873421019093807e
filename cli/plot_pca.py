"""``geomkit plot-pca``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .many import colours, load_all
from .options import Device, Download, ModelData, ModelSplit, Overwrite, Workers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geomkit.embeddings.embeddings import Embeddings

__all__ = ["plot_pca"]


def plot_pca(
    sources: Annotated[
        list[str],
        typer.Argument(help="Any number of checkpoints, models (with --data) or embeddings."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The picture: .png, .pdf or .svg.")
    ] = Path("pca.png"),
    scatter: Annotated[
        bool,
        typer.Option("--scatter", help="Draw pairs on the first two components of both together."),
    ] = False,
    lines: Annotated[bool, typer.Option("--lines", help="Join the pairs of a scatter.")] = False,
    pairs: Annotated[int, typer.Option(help="Draw at most so many pairs.")] = 1000,
    data: ModelData = None,
    split: ModelSplit = None,
    device: Device = "auto",
    workers: Workers = None,
    download: Download = False,
    overwrite: Overwrite = False,
) -> None:
    """Draw how much of each cloud's variance how many principal components hold.

    Components are of each modality, centred; bands are 95% intervals over pairs. With --scatter the
    pairs themselves, on the first two components of images and texts together.
    """
    from geomkit.errors import GeomkitError
    from geomkit.plots import check_figure_path, save_figure

    check_figure_path(out, overwrite=overwrite)
    if lines and not scatter:
        raise GeomkitError("--lines joins the pairs of --scatter; give both")
    if pairs < 1:
        raise GeomkitError(f"pairs: expected 1 or more, got {pairs}")
    loaded = load_all(
        sources, data=data, split=split, device=device, workers=workers, download=download
    )
    if scatter:
        from geomkit.plots.spectrum import plane_row, principal_plane

        planes = [principal_plane(e, pairs=pairs, title=name) for name, e, _ in loaded]
        figure = plane_row(planes, lines=lines)
    else:
        figure = _curves(loaded)
    save_figure(figure, out, overwrite=overwrite)
    typer.echo(out)


def _curves(loaded: list[tuple[str, Embeddings, str | None]]) -> Figure:
    """One source: images red, texts blue; several: a colour each, and a panel a modality."""
    import numpy as np

    from geomkit._core.array import to_numpy
    from geomkit.metrics import explained_variance_with_error
    from geomkit.plots.spectrum import Curve, cumulative_curves
    from geomkit.plots.style import MODALITY_COLOURS

    looks = colours([loss for _, _, loss in loaded])
    shown: dict[str, list[Curve]] = {"image": [], "text": []}
    for (name, embeddings, _), (colour, _) in zip(loaded, looks, strict=True):
        for side, rows in zip(shown, embeddings.pairs(), strict=True):
            values, errors, _, _ = explained_variance_with_error(to_numpy(rows[:]))
            half = 1.96 * np.nan_to_num(errors)
            bounds = np.clip(values - half, 0, 1), np.clip(values + half, 0, 1)
            alone = len(loaded) == 1
            shown[side].append(
                Curve(
                    f"{side}s" if alone else name,
                    values,
                    MODALITY_COLOURS[side] if alone else colour,
                    low=bounds[0],
                    high=bounds[1],
                )
            )
    if len(loaded) == 1:
        return cumulative_curves([(loaded[0][0], [*shown["image"], *shown["text"]])])
    return cumulative_curves([("Images", shown["image"]), ("Texts", shown["text"])])
