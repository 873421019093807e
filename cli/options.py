"""From functions to commands, and the options that several commands share.

A command is a function: its positional parameters are arguments, its keyword-only ones are options.
Their help is what its docstring says of them under ``Args:``; an option that is not called as its
parameter has its names in parentheses there.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, is_dataclass
from functools import wraps
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, get_origin

import typer
from typer.core import TyperCommand

from geomkit._core.files import from_home
from geomkit.errors import GeomkitError, unknown_name

from . import console
from .ranks import alone

__all__ = [
    "PRECISIONS", "CacheImages", "Close", "Data", "DataOptions", "Device", "Download", "Drawn",
    "ModelOptions", "Overwrite", "PageOut", "PlotPairs", "PlotSources", "Precision",
    "TaskOptions", "TrustData", "Workers", "add_command", "as_command", "offer", "one_of",
    "parameters", "parse_columns", "within",
]  # fmt: skip

_PANELS = {
    "Models and data": "data split precision batch_size columns max_bad image_column "
    "caption_column fast_decode trust_data close download cache_images",
    "Machine": "device workers threads jobs",
    "Output": "form as_json as_csv out html page overwrite",
    "Figure": "title labels size dpi theme",
}
"""Panels of --help with the parameters that they list; the first panel has a command's own."""

_WHOLE = 20
"""Characters of a list of choices that a column of --help has room for."""


class _Command(TyperCommand):
    """A command whose help shows the words of a default as they are, and not in parentheses."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        for parameter in self.params:
            words = getattr(parameter, "show_default", None)
            if isinstance(words, str):
                vars(parameter)["_get_default_string"] = lambda words=words, **_: words


def within(low: float, high: float, meaning: str = "") -> Any:
    """Return an option of a number in a range, which the help shows in words and not as a type."""

    def check(value: Any) -> Any:
        if value is not None and not low <= value <= high:
            words = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
            raise typer.BadParameter(f"expected {words}, got {value}")
        return value

    return typer.Option(help=meaning or None, callback=check)


def one_of(*names: str, help: str | None = None, flag: str = "") -> Any:
    """Return an option whose help and completion show its choices; the library checks the value."""
    option = typer.Option(*filter(None, [flag]), help=help)
    offer(option, names)
    return option


def offer(option: Any, names: Sequence[str]) -> None:
    """Let an option's help and completion show its choices."""
    # A long list is broken between its names, where the terminal is too narrow for it.
    mark = "|" if sum(map(len, names)) + len(names) <= _WHOLE else " | "
    option.metavar, option.autocompletion = mark.join(names), lambda: list(names)


Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda[:n] or mps.")]
Workers = Annotated[
    int | None,
    within(0, 256, "Processes that decode images, 0 to 256; default: one per core."),
]
Download = Annotated[bool, typer.Option("--download", help="Allow the download of model weights.")]
PRECISIONS = ("auto", "fp32", "bf16", "fp64")
_SPLITS = ("train", "val", "test", "all")
Precision = Annotated[str, one_of(*PRECISIONS, help="Precision; auto: bf16 on CUDA, else fp32.")]
TrustData = Annotated[
    bool,
    typer.Option(
        "--trust-data",
        help="Read the data that a checkpoint names even if they lie outside its folder.",
    ),
]
Close = Annotated[
    Path | None,
    typer.Option("--close", help="Intervention that embeddings go through: a file of close --out."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")]
CacheImages = Annotated[
    bool, typer.Option("--cache-images", help="Keep decoded, resized images in the cache.")
]
PlotSources = Annotated[
    list[str] | None, typer.Argument(help="Checkpoints, models (with --data) or embeddings.")
]
PlotPairs = Annotated[int, within(1, math.inf, "Largest number of pairs to draw.")]
PageOut = Annotated[
    Path | None,
    typer.Option("--html", help="Interactive page to write, .html; a figure too only with --out."),
]
Data = Annotated[
    str,
    typer.Option(
        help="DATA spec of labelled images, such as imagefolder:DIR, cifar10:ROOT or "
        "openmoji,attribute=gender; geomkit data lists them all."
    ),
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """How a SOURCE that is a model becomes embeddings.

    Attributes:
        data: DATA spec to embed with a model; default: a checkpoint's own data.
        split: Split to embed with a model; default: val.
        device: Device.
        precision: Precision of a model; auto: bf16 on CUDA. Default: fp32, and fp64 for a run
            trained in it.
        workers: Processes.
        download: Whether to download weights.
        columns: Arrays of a file of embeddings: image=NAME,text=NAME, or any other modalities;
            also image_index=NAME. Default: told by their names.
        fast_decode: Decode large JPEGs at a reduced size, which moves the embeddings a little.
        trust_data: Whether data that a checkpoint names may lie outside its folder.
        close: Intervention.
    """

    data: str | None = None
    split: Annotated[str | None, one_of(*_SPLITS)] = None
    device: Device = "auto"
    precision: Annotated[str | None, one_of(*PRECISIONS)] = None
    workers: Workers = None
    download: Download = False
    columns: str | None = None
    fast_decode: bool = False
    trust_data: TrustData = False
    close: Close = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of :func:`geomkit.extraction.load.load_source`.

        Raises:
            GeomkitError: If the columns are not pairs of names.
        """
        return {**vars(self), "columns": parse_columns(self.columns)}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What else a figure shows beside its SOURCES, and what it calls them.

    Attributes:
        image: A file with one matrix (n, d) of image embeddings, as another source; goes with
            --text.
        text: A file with one matrix (n, d) of text embeddings.
        labels: Names of the sources in the figure, with commas.
    """

    image: Path | None = None
    text: Path | None = None
    labels: str | None = None


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """How a figure looks.

    Attributes:
        title: Title above the figure.
        size: Width and height in inches, such as 7x4; default: as much as the content needs.
        dpi: Resolution of a .png.
        theme: Colours.
    """

    title: str | None = None
    size: str | None = None
    dpi: Annotated[int, within(20, 2400)] = 200
    theme: Annotated[str, one_of("light", "dark")] = "light"

    def inches(self) -> tuple[float, float] | None:
        """Return the size, or ``None`` if none is given.

        Raises:
            GeomkitError: If it is no size, or the theme is unknown.

        >>> FigureOptions(size="7x4.5").inches()
        (7.0, 4.5)
        """
        if self.theme not in ("light", "dark"):
            raise unknown_name("theme", self.theme, ("light", "dark"))
        if self.size is None:
            return None
        try:
            width, height = (float(part) for part in self.size.lower().split("x"))
        except ValueError:
            width = height = math.nan
        if not (0.5 <= width <= 100 and 0.5 <= height <= 100):
            raise GeomkitError(f"--size {self.size}: expected inches, such as 7x4")
        return width, height


def parse_columns(text: str | None) -> dict[str, str] | None:
    """Return the names of arrays by modality, or ``None`` if none are given.

    Raises:
        GeomkitError: If it is no list of ROLE=NAME, or a role is named twice.

    >>> parse_columns("image=a,text=b")
    {'image': 'a', 'text': 'b'}
    """
    found: dict[str, str] = {}
    for part in text.split(",") if text else ():
        role, _, name = (word.strip() for word in part.partition("="))
        if not (role and name) or role in found:
            raise GeomkitError(f"--columns {text}: expected image=NAME,text=NAME")
        found[role] = name
    return found or None


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Options that complete a DATA spec.

    Attributes:
        max_bad: Share of images that may fail to decode, 0 to 1.
        image_column: Column of image files in a csv: data set.
        caption_column: Column of captions in a csv: data set.
        fast_decode: Decode large JPEGs at a reduced size, which moves the embeddings a little.
    """

    max_bad: float | None = None
    image_column: str | None = None
    caption_column: str | None = None
    fast_decode: bool = False

    def complete(self, spec: str) -> str:
        """Return a DATA spec with the options that were given."""
        from geomkit.data import with_options

        given = {**vars(self), "draft": self.fast_decode or None}
        del given["fast_decode"]
        return with_options(spec, **given)


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """How models are evaluated on a task, and where the result goes.

    Attributes:
        as_json (--json): Print JSON.
        out (--out, -o): JSON file to write.
        overwrite: Whether to replace it.
        device: Device.
        precision: Precision.
        batch_size: Images and texts per batch.
        workers: Processes.
        max_bad: Share of images that may fail to decode, 0 to 1.
        download: Whether to download weights.
        close: Intervention.
    """

    as_json: bool = False
    out: Path | None = None
    overwrite: Overwrite = False
    device: Device = "auto"
    precision: Precision = "fp32"
    batch_size: Annotated[int, within(1, 100_000)] = 256
    workers: Workers = None
    max_bad: Annotated[float, within(0.0, 1.0)] = 0.01
    download: Download = False
    close: Close = None


_ENTRY = re.compile(r"^ {4}(\w+)(?: \((.+)\))?: (.+(?:\n {8}.+)*)", re.MULTILINE)
"""What a docstring says of a parameter: its name, the names of its option, its meaning."""


def parameters(command: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a command as Typer takes them, all keyword-only.

    A parameter whose type is a dataclass of options is spread into its fields.
    """
    entries = {name: rest for name, *rest in _ENTRY.findall(inspect.getdoc(command) or "")}
    found = []
    for p in inspect.signature(command, eval_str=True).parameters.values():
        kind: Any = p.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            found += parameters(kind)
        elif kind is typer.Context:
            found.append(p.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        elif p.kind is not inspect.Parameter.VAR_KEYWORD:
            names, meaning = entries.get(p.name, ("", ""))
            if get_origin(kind) is Annotated:
                kind, info = kind.__origin__, copy(kind.__metadata__[0])
            else:
                flag = f"--{p.name.replace('_', '-')}" if p.default is False else ""
                declared = filter(None, (names or flag).split(", "))
                option = p.kind is inspect.Parameter.KEYWORD_ONLY
                info = typer.Option(*declared) if option else typer.Argument()
            info.help = info.help or " ".join(meaning.split())
            if isinstance(info, typer.models.OptionInfo) and info.rich_help_panel is None:
                panels = (panel for panel, of in _PANELS.items() if p.name in of.split())
                info.rich_help_panel = next(panels, None)
            found.append(
                p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info])
            )
    return found


def as_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function for Typer with the parameters of :func:`parameters`.

    It collects the fields of each dataclass of options again.
    """
    groups: dict[str, Any] = {
        name: p.annotation
        for name, p in inspect.signature(function, eval_str=True).parameters.items()
        if is_dataclass(p.annotation)
    }

    @wraps(function)
    def call(**given: Any) -> Any:
        for name, value in given.items():
            if isinstance(value, Path):
                given[name] = Path(from_home(value))
        for name, group in groups.items():
            given[name] = group(**{f: given.pop(f) for f in group.__dataclass_fields__})
        try:
            return function(**given)
        except KeyboardInterrupt:  # typer would end without a word
            console.line("interrupted")
            return 130

    call.__signature__ = inspect.Signature(parameters(function))  # type: ignore[attr-defined]
    return call


def add_command(
    app: typer.Typer, function: Callable[..., Any], *, ranked: bool, **settings: Any
) -> None:
    """Add a command whose help, with its examples, is the docstring of a function.

    Args:
        app: Application.
        function: The command.
        ranked: Whether the ranks of torchrun share its work; otherwise it is refused there.
        settings: Further arguments of Typer.
    """
    text, _, examples = inspect.cleandoc(function.__doc__ or "").partition("\n\nExamples:\n")
    paragraphs = text.partition("\n\nArgs:")[0].split("\n\n")
    app.command(
        function.__name__.replace("_", "-"),
        help="\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs),
        epilog=f"\b\nExamples:\n{dedent(examples)}",
        cls=_Command,
        **settings,
    )(as_command(function if ranked else alone(function)))
