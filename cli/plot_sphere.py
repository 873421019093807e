"""``geomkit plot-sphere``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["plot_sphere"]


def plot_sphere(
    checkpoint: Annotated[Path, typer.Argument(help="A geomkit checkpoint.")] = Path("ckpt.pt"),
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The picture: .png, .pdf or .svg.")
    ] = Path("sphere.png"),
    stages: Annotated[int, typer.Option(help="Spheres in the row, 1 to 8.")] = 5,
    split: Annotated[
        str | None, typer.Option(help="For d > 3: which pairs; val if not given.")
    ] = None,
    pairs: Annotated[int, typer.Option(help="Draw at most so many pairs.")] = 1000,
    device: Annotated[str, typer.Option(help="For d > 3: where to run the model.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
) -> None:
    """Draw the stages of training on the sphere; a model with d > 3 through its first three PCs."""
    from geomkit.plots import check_figure_path, save_figure

    check_figure_path(out, overwrite=overwrite)
    from geomkit.checkpoints import load_checkpoint
    from geomkit.plots.sphere import project_to_sphere, sphere_row, training_stages

    content = load_checkpoint(checkpoint)
    if content["snapshots"]:
        figure = sphere_row(training_stages(content, stages), pairs=pairs)
    else:
        from geomkit.sources import load_source

        embeddings, name = load_source(checkpoint, split=split, device=device)
        title = f"{content['loss']}, {name} split, n={embeddings.n}"
        figure = sphere_row([project_to_sphere(embeddings, title=title)], pairs=pairs)
    save_figure(figure, out, overwrite=overwrite)
    typer.echo(out)
