"""``.pt``: a dictionary with ``image`` and ``text``, as tensors, arrays or lists."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from geomkit._core.files import is_torch_file
from geomkit.embeddings.contents import Arrays, held, modality_of
from geomkit.embeddings.reading import Format
from geomkit.errors import GeomkitError

__all__ = ["FORMAT"]


def _of_content(path: Path, content: Any) -> Arrays:
    """Everything in a torch file by name, whatever holds its numbers; bfloat16 is widened.

    Raises:
        GeomkitError: If the file holds anything but a dictionary with embeddings in it.
    """
    from geomkit.models.checkpoints.kinds import named_as

    if getattr(content, "ndim", 0) in (2, 3):  # a tensor
        return {"embedding": held(content)}
    content = _flat(content)
    if not isinstance(content, dict):
        what = f"a {type(content).__name__}"
    elif any(map(_known, content)) or _few(content):
        # None says that there is no such array.
        return {str(name): held(value) for name, value in content.items() if value is not None}
    else:
        what = "a dictionary"
    raise GeomkitError(
        f"{path}: a torch file that holds {what}, but neither a checkpoint written by geomkit nor "
        f"tensors 'image' and 'text'; name another model as {named_as(path)}"
    )


def _flat(content: Any) -> Any:
    """One dictionary of what is a dictionary a row, or a dictionary inside another."""
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        first, *others = content
        if any(row.keys() != first.keys() for row in others):
            return content
        return {name: [row[name] for row in content] for name in first}
    if isinstance(content, dict) and not any(map(_known, content)):
        inner = [v for v in content.values() if isinstance(v, dict) and any(map(_known, v))]
        if len(inner) == 1:
            return {k: v for k, v in content.items() if v is not inner[0]} | inner[0]
    return content


def _known(name: Any) -> bool:
    return modality_of(str(name)) is not None


def _few(content: dict) -> bool:
    """Whether a dictionary is not the weights of a model: it holds two or three matrices."""
    return 1 < sum(getattr(value, "ndim", 0) == 2 for value in content.values()) < 4


def _read(path: Path) -> Arrays:
    from geomkit.models.checkpoints import read_torch_file

    with warnings.catch_warnings():  # torch comments on sparse tensors as it loads them
        warnings.filterwarnings("ignore", message=".*sparse")
        return _of_content(path, read_torch_file(path))


FORMAT = Format(
    ".pt", matches=lambda path, head: path.is_file() and is_torch_file(path), read=_read
)
