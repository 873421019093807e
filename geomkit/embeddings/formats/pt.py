"""``.pt``: a dictionary with ``image`` and ``text``, as tensors, arrays or lists."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geomkit._core.files import is_torch_file
from geomkit.embeddings.contents import Arrays, Foreign, held, is_matrix, modality_of
from geomkit.embeddings.reading import Contents, Format
from geomkit.embeddings.rows import Shard
from geomkit.errors import GeomkitError

__all__ = ["FORMAT"]

_SHOWN = 4


def _of_content(path: Path, content: Any) -> Arrays | Contents:
    """Everything in a torch file by name, whatever holds its numbers; bfloat16 is widened.

    Raises:
        GeomkitError: If the file holds anything but a dictionary with embeddings in it.
    """
    from geomkit.models.checkpoints.kinds import named_as

    if getattr(content, "ndim", 0) in (2, 3):  # a tensor
        return {"embedding": held(content)}
    if isinstance(content, list | tuple) and any(map(is_matrix, parts := list(map(held, content)))):
        return _without_names(type(content), parts)
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


def _without_names(kind: type, parts: Sequence[Shard | Foreign]) -> Contents:
    """Images and texts of a tuple of two matrices. A list may hold the batches of one modality.

    Raises:
        GeomkitError: If it is anything else.
    """
    if kind is tuple and len(parts) == 2 and all(map(is_matrix, parts)):
        image, text = parts
        if image.shape[0] == text.shape[0]:
            return Contents(
                {"image": image, "text": text},
                notes=(
                    "of a tuple of two matrices the first is read as image, the second as text",
                ),
            )
    shapes = [str(p.shape) if p.shape else "more" for p in parts]
    more = f" and {len(shapes) - _SHOWN} more" if len(shapes) > _SHOWN else ""
    raise GeomkitError(
        f"a {kind.__name__} without names, of {', '.join(shapes[:_SHOWN])}{more}; save it as "
        "torch.save({'image': x, 'text': y, 'image_index': image_of_each_text}, 'e.pt')"
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


def _read(path: Path) -> Arrays | Contents:
    from geomkit.models.checkpoints import read_torch_file

    with warnings.catch_warnings():  # torch comments on sparse tensors as it loads them
        warnings.filterwarnings("ignore", message=".*sparse")
        return _of_content(path, read_torch_file(path))


FORMAT = Format(
    ".pt", matches=lambda path, head: path.is_file() and is_torch_file(path), read=_read
)
