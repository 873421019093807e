"""Options that several commands share: one wording, one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Device", "Download", "JsonOut", "MaxBad", "ModelData", "ModelSplit", "Models", "Overwrite",
    "PerClass", "Precision", "TaskData", "TaskJson", "Workers",
]  # fmt: skip

Models = Annotated[list[str], typer.Argument(help="Models: checkpoints, open_clip:NAME/TAG…")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda[:n] or mps.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp64.")]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that decode pictures; a core each if not given."),
]
MaxBad = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Largest share of pictures that may be bad.")
]
Download = Annotated[bool, typer.Option("--download", help="Let a model's weights be downloaded.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace --out.")]

# Where a SOURCE may be a model or embeddings
ModelData = Annotated[
    str | None, typer.Option(help="For models: a DATA spec; our checkpoints know theirs.")
]
ModelSplit = Annotated[
    str | None, typer.Option(help="For models: train, val (if not given), test or all.")
]

# Tasks
TaskData = Annotated[
    str,
    typer.Option(
        help="imagefolder:DIR, cifar10:ROOT, cifar100:ROOT, dtd:ROOT, caltech101:ROOT, "
        "imagenet:ROOT, or openmoji,attribute=skin_tone (gender, flag, keycap)."
    ),
]
PerClass = Annotated[bool, typer.Option("--per-class", help="With the recall of each class.")]
TaskJson = Annotated[bool, typer.Option("--json", help="Print JSON in CLIP_benchmark's form.")]
JsonOut = Annotated[Path | None, typer.Option("--out", "-o", help="Write that JSON here.")]
