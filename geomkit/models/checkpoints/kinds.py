"""The kinds of checkpoints: what a SOURCE's prefix, or a file without one, stands for.

Importing this module, or a kind's, does not import torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from geomkit._core.discovery import registry
from geomkit._core.files import from_home
from geomkit._core.memory import check_file
from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.other_folders import HUB, hint, hub_hint

__all__ = [
    "CheckpointKind",
    "find_kind",
    "kinds",
    "model_forms",
    "named_as",
    "open_model",
    "prefixes",
]


_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors",
            "open_clip_pytorch_model.bin")  # fmt: skip
"""Names of files that hold the weights of the folder they are in."""


class Opener(Protocol):
    """The signature of :attr:`CheckpointKind.open`."""

    def __call__(self, place: str, *, source: str, download: bool) -> Checkpoint:
        """Return the model at a place, its SOURCE without the prefix."""


@dataclass(frozen=True)
class CheckpointKind:
    """A kind of checkpoint. A module of this package that declares one adds it.

    Attributes:
        name: Name of the kind and prefix of its SOURCE strings.
        what: What such a checkpoint is, in a few words.
        open: Opener: takes the SOURCE without its prefix, the whole SOURCE for messages, and
            whether files may be downloaded. Imports torch inside.
        forms: Forms of its SOURCE strings, such as ``hf:DIR``, with FILE, PATH or DIR for a place;
            a kind without any is recognised by ``matches`` alone.
        matches: Whether a file that is named without a prefix is of this kind.
        knows_data: Whether its ``meta`` holds the ``data`` that a model was trained on.
    """

    name: str
    what: str
    open: Opener
    forms: tuple[str, ...] = ()
    matches: Callable[[Path], bool] = lambda path: False
    knows_data: bool = False


@cache
def kinds() -> Mapping[str, CheckpointKind]:
    """Return all kinds of checkpoints by name.

    >>> "hf" in kinds()
    True
    """
    return registry(
        "geomkit.models.checkpoints", CheckpointKind, first=["trained_run", "open_clip_files"]
    )


def prefixes() -> list[str]:
    """Return the prefixes of model sources. Any other word before a colon is part of a path."""
    return [kind.name for kind in kinds().values() if kind.forms]


def model_forms(last: str = ", ") -> str:
    """Return the SOURCE forms of models that are named with a prefix, for help texts.

    Args:
        last: Separator before the last form.
    """
    *others, end = [form for kind in kinds().values() for form in kind.forms]
    return ", ".join(others) + last + end


def named_as(path: str | Path) -> str:
    """Return the SOURCE strings that would name a model at a path, for error messages.

    >>> named_as("w.pt")
    'open_clip:NAME/w.pt, openai:w.pt or paper:w.pt'
    """
    word = "DIR" if Path(path).is_dir() else "FILE"
    forms = [form for kind in kinds().values() for form in kind.forms if form.endswith(word)]
    *others, end = [form.replace(word, str(path)) for form in forms]
    return " or ".join(filter(None, [", ".join(others), end]))


def find_kind(source: str | Path) -> CheckpointKind | None:
    """Return the kind of model that a SOURCE names, or ``None`` if it names no model.

    Raises:
        GeomkitError: If a path does not exist, is a pipe or a device, or cannot be read.
    """
    prefix, colon, place = str(source).partition(":")
    if colon and prefix in prefixes():
        # Before open_clip is imported, which knows how much of NAME/FILE is the name.
        for match in re.finditer("^|[/,]", place):
            file = place[match.end() :].partition("#")[0]
            if os.path.exists(file):  # noqa: PTH110 - no error for a long name
                check_file(Path(file))
                break
        return kinds()[prefix]
    path = Path(source)
    if not path.exists():
        if f"{prefix}:" == HUB:
            raise GeomkitError(f"{source}: no source{hub_hint(str(source))}")
        if colon and len(prefix) > 1 and not any(mark in prefix for mark in "/\\."):
            raise unknown_name("prefix of a source", prefix, prefixes())
        raise GeomkitError(f"{path}: no such file{hub_hint(str(source))}")
    check_file(path)
    kind = next((kind for kind in kinds().values() if kind.matches(path)), None)
    folder = path if path.is_dir() else path.parent if path.name in _WEIGHTS else None
    if kind is None and folder is not None and not any(folder.glob("*_emb")):
        told = hint(folder, below=False)
        if told:
            raise GeomkitError(f"{path}: a model, not embeddings{told}")
    return kind


def open_model(source: str | Path, *, download: bool = False) -> Checkpoint:
    """Return the model that a SOURCE names, with everything needed to give it inputs.

    Args:
        source: ``open_clip:NAME/TAG``, ``open_clip:NAME/FILE``, ``open_clip:DIR``, ``hf:DIR``,
            ``openai:FILE``, ``paper:FILE``, the path of a geomkit checkpoint, or a form of any
            other kind.
        download: Whether files that are not on this machine may be downloaded.

    Returns:
        The model on the CPU, in float32 and evaluation mode.

    Raises:
        GeomkitError: If it is missing, damaged, of another kind, or would have to be executed or
            downloaded.
    """
    source = from_home(source)
    # A file of no kind is opened as a geomkit checkpoint, whose reader says what is wrong with it.
    kind = find_kind(source) or kinds()["geomkit"]
    place = source.removeprefix(f"{kind.name}:") if kind.forms else source
    if not place:
        raise GeomkitError(f"source '{source}': nothing after the colon; name a file or folder")
    checkpoint = kind.open(place, source=source, download=download)
    checkpoint.check_inputs()
    return checkpoint
