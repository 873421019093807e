"""``geomkit plot-close``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from geomkit.errors import GeomkitError

from . import console
from .close import load_fit, say_fit
from .many import Figure, draws
from .options import ModelOptions, within

if TYPE_CHECKING:
    from geomkit.plots.closing import Point

__all__ = ["plot_close"]


@draws("close.png")
def plot_close(
    source: Annotated[
        str, typer.Argument(help="A checkpoint, a model (with --data) or embeddings.")
    ],
    *,
    method: list[str] | None = None,
    fit: str | None = None,
    gap: str = "centroid_distance",
    against: Annotated[
        str, typer.Option(show_default="recall@1 and two of both modalities")
    ] = "recall@1,mixed_recall@10,modality_bias",
    temperature: Annotated[float, within(1e-4, 100.0)] = 0.01,
    caption_index: int = 0,
    seed: int = 0,
    exact_limit: int | None = None,
    options: ModelOptions,
) -> Figure:
    """Draw what closing the gap after training gains and costs, a point a method.

    Below are the curves of Liang et al., "Mind the Gap": centroid distance, contrastive loss and
    recall against a shift of both modalities towards each other. 0 is no shift; at 1 each has moved
    by half of the gap vector, and the centroids meet.

    Args:
        source: What to close.
        method: Method with its options, as for geomkit close; repeatable. Default: all.
        fit: Split to fit on, or another SOURCE of embeddings, as for geomkit close.
        gap: Metric of the horizontal axis.
        against: Metrics of the vertical axes, with commas; a panel each.
        temperature: Temperature of the contrastive loss of the curves.
        caption_index: Text of each image for every metric that is no recall.
        seed: Random seed of the halves, of folds and samples.
        exact_limit: Number of rows up to which all pairs are compared; as for gap.
        options: How models become embeddings.

    Examples:
        $ geomkit plot-close embeddings.npz
        $ geomkit plot-close ckpt.pt --against recall@5,mixed_recall@5
    """
    from geomkit.interventions.applying import halved
    from geomkit.interventions.closing import check_measured, close, shifts
    from geomkit.plots.closing import closing_panels

    names = [word.strip() for word in against.split(",")]
    if options.close is not None:
        raise GeomkitError("--close applies to other commands: this one fits rows as they are")
    if len(check_measured([gap], [])) != 1:
        raise GeomkitError(f"--gap {gap}: is a group; give one metric")
    if not set(check_measured(names, [])) - {gap}:
        raise GeomkitError("--against: needs another metric than --gap")
    embeddings, split, fit_on, _ = load_fit(source, fit, options)
    if fit_on is None:
        fit_on, embeddings = halved(embeddings, seed)
    found = close(
        embeddings, method or ["all"], fit_on=fit_on, metrics=[gap, *names], source=source,
        split=split, caption_index=caption_index, seed=seed, exact_limit=exact_limit,
    )  # fmt: skip
    for name, reason in found.left_out.items():
        console.line(f"{source}: {name} left out: {reason}")
    console.line(f"{source}: fitted on {fit_on.n:,} pairs; measured on {embeddings.n:,} others")
    say_fit(source, found)
    points: dict[str, dict[str, Point]] = {
        "none": {name: (found.value(name), 0.0) for name in found.shown}
    }
    for outcome in found.outcomes:
        points[outcome.method] = {
            name: (found.value(name, outcome), found.difference(outcome, name).stderr)
            for name in found.shown
        }
    curve = shifts(
        embeddings, found.moments, temperature=temperature, caption_index=caption_index,
        exact_limit=exact_limit, seed=seed,
    )  # fmt: skip
    curves = {
        "Centroid distance, signed": curve.distance,
        f"Contrastive loss, τ = {temperature:g}": curve.loss,
        "Recall@1, both ways": curve.recall,
    }
    return closing_panels(
        points,
        gap=found.shown[0],
        against=found.shown[1:],
        strengths=curve.strengths,
        curves=curves,
        note=f"n = {embeddings.n:,} (loss: {curve.n:,})",
    )
