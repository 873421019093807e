"""Options that several commands share: one wording, one meaning."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

__all__ = ["CacheImages", "CaptionColumn", "Data", "DataMaxBad", "Device", "Download",
           "FigureOut", "ImageColumn", "MaxBad", "ModelData", "ModelOptions", "ModelSplit",
           "Overwrite", "PlotPairs", "PlotSources", "Precision", "TaskOptions", "Workers",
           "grouped"]  # fmt: skip

Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda[:n] or mps.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes that decode images; default: one per core.")
]
MaxBad = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Share of images that may fail to decode, 0 to 1.")
]
Download = Annotated[bool, typer.Option("--download", help="Allow the download of model weights.")]
ModelData = Annotated[
    str | None,
    typer.Option(help="DATA spec to embed with a model; default: a checkpoint's own data."),
]
ModelSplit = Annotated[
    str | None,
    typer.Option(help="Split to embed with a model: train, val, test or all; default: val."),
]
Precision = Annotated[str, typer.Option(help="Precision: auto, fp32, bf16 or fp64.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")]
CacheImages = Annotated[
    bool, typer.Option("--cache-images", help="Keep decoded, resized images in the cache.")
]
ImageColumn = Annotated[str | None, typer.Option(help="Column of image files in a csv: data set.")]
CaptionColumn = Annotated[str | None, typer.Option(help="Column of captions in a csv: data set.")]
DataMaxBad = Annotated[
    float | None, typer.Option(help="Share of images that may fail to decode, 0 to 1.")
]
PlotSources = Annotated[
    list[str], typer.Argument(help="Checkpoints, models (with --data) or embeddings.")
]
PlotPairs = Annotated[int, typer.Option(help="Largest number of pairs to draw.")]
FigureOut = Annotated[Path, typer.Option("--out", "-o", help="Figure file: .png, .pdf or .svg.")]
Data = Annotated[
    str,
    typer.Option(
        help="DATA spec of labelled images, such as imagefolder:DIR, cifar10:ROOT or "
        "openmoji,attribute=gender; geomkit data lists them all."
    ),
]


@dataclass(frozen=True)
class ModelOptions:
    """How a SOURCE that is a model becomes embeddings."""

    data: ModelData = None
    split: ModelSplit = None
    device: Device = "auto"
    workers: Workers = None
    download: Download = False


@dataclass(frozen=True)
class TaskOptions:
    """How models are evaluated on a task, and where the result goes."""

    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file to write.")] = None
    overwrite: Overwrite = False
    device: Device = "auto"
    precision: Precision = "auto"
    batch_size: Annotated[int, typer.Option(min=1, help="Images and texts per batch.")] = 256
    workers: Workers = None
    max_bad: MaxBad = 0.01
    download: Download = False


def grouped(command: Callable[..., Any]) -> Callable[..., Any]:
    """Spread each parameter whose type is a dataclass of options into these options.

    The command receives the dataclass; the command line shows its fields in its place.
    """
    own = inspect.signature(command, eval_str=True)
    groups = {
        name: p.annotation for name, p in own.parameters.items()
        if p.annotation in (ModelOptions, TaskOptions)
    }  # fmt: skip
    spread: list[inspect.Parameter] = []
    for name, parameter in own.parameters.items():
        if name not in groups:
            spread.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        hints = get_type_hints(groups[name], include_extras=True)
        spread += [
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name]
            )
            for f in fields(groups[name])
        ]

    @wraps(command)
    def call(**given: Any) -> Any:
        for name, group in groups.items():
            given[name] = group(**{f.name: given.pop(f.name) for f in fields(group)})
        return command(**given)

    call.__signature__ = own.replace(parameters=spread)  # type: ignore[attr-defined]
    return call
