"""``.pt``: a dictionary of torch tensors ``image`` and ``text``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geomkit._core.array import to_numpy
from geomkit._core.files import is_torch_file
from geomkit.embeddings.ownership import KEYS
from geomkit.embeddings.reading import Format, Loaded, named, naming
from geomkit.embeddings.rows import ArrayShard
from geomkit.errors import GeomkitError

__all__ = ["FORMAT", "of_content"]


def of_content(path: Path, content: Any) -> Loaded:
    """The embeddings among the content of a torch file, without a copy; bfloat16 is widened.

    Raises:
        GeomkitError: If there are none, or as :func:`geomkit.embeddings.reading.named`.
    """
    import torch

    from geomkit.models.checkpoints.kinds import named_as

    found = content if isinstance(content, dict) else {}
    arrays = {
        key: ArrayShard(to_numpy(found[key]))
        for key in ("image", "text", *KEYS)
        if isinstance(found.get(key), torch.Tensor)
    }
    if not {"image", "text"} <= set(arrays):
        raise GeomkitError(
            f"{path}: a torch file, but neither a checkpoint written by geomkit nor tensors "
            f"'image' and 'text'; name another model as {named_as(path)}"
        )
    with naming(path):
        return named(arrays)


def _read(path: Path) -> Loaded:
    from geomkit.models.checkpoints import read_torch_file

    return of_content(path, read_torch_file(path))


FORMAT = Format(
    ".pt", matches=lambda path, head: path.is_file() and is_torch_file(path), read=_read
)
