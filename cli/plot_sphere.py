"""``geomkit plot-sphere``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Device, Download, ModelData, ModelSplit, Overwrite, Workers

if TYPE_CHECKING:
    from geomkit.models.checkpoints import TrainedRun

__all__ = ["plot_sphere"]


def plot_sphere(
    source: Annotated[
        str, typer.Argument(help="A geomkit checkpoint, or any SOURCE: a model or embeddings.")
    ] = "ckpt.pt",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The picture: .png, .pdf or .svg.")
    ] = Path("sphere.png"),
    stages: Annotated[int, typer.Option(help="Spheres in the row, 1 to 8.")] = 5,
    data: ModelData = None,
    split: ModelSplit = None,
    pairs: Annotated[int, typer.Option(help="Draw at most so many pairs.")] = 1000,
    device: Device = "auto",
    workers: Workers = None,
    download: Download = False,
    overwrite: Overwrite = False,
) -> None:
    """Draw the stages of training on the sphere; rows with d > 3 through their first three PCs.

    The stages are those that the training of a 3-D checkpoint kept; with --data, --split or another
    SOURCE the embeddings of that are drawn.
    """
    from geomkit.plots import check_figure_path, save_figure

    check_figure_path(out, overwrite=overwrite)
    from geomkit.plots.sphere import project_to_sphere, sphere_row, training_stages

    content = _checkpoint(source) if data is None and split is None else None
    if content is not None and content.snapshots:
        figure = sphere_row(training_stages(content, stages), pairs=pairs)
    else:
        from geomkit.sources import load_source

        embeddings, name = load_source(
            source, data=data, split=split, device=device, download=download, workers=workers
        )
        what = content.loss if content is not None else Path(source).name
        title = f"{what}, {name} split, n={embeddings.n}" if name else f"{what}, n={embeddings.n}"
        figure = sphere_row([project_to_sphere(embeddings, title=title)], pairs=pairs)
    save_figure(figure, out, overwrite=overwrite)
    typer.echo(out)


def _checkpoint(source: str) -> TrainedRun | None:
    """The content of a geomkit checkpoint, if the source is one."""
    from geomkit._core.files import is_torch_file
    from geomkit.sources import has_model_prefix

    if has_model_prefix(source) or not Path(source).is_file() or not is_torch_file(Path(source)):
        return None
    from geomkit.models.checkpoints import TrainedRun, read_torch_file

    content = read_torch_file(source)
    tensors = isinstance(content, dict) and {"image", "text"} <= set(content)
    return None if tensors else TrainedRun.from_dict(content, source)
