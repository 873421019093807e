"""Any number of SOURCES at once, each with a name that tells it from the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geomkit.embeddings.embeddings import Embeddings

__all__ = ["colours", "load_all", "short_names"]


def load_all(
    sources: Sequence[str],
    *,
    data: str | None,
    split: str | None,
    device: str,
    workers: int | None,
    download: bool,
) -> list[tuple[str, Embeddings, str | None]]:
    """A short name, the embeddings and the loss (of our own checkpoints) of each source.

    Raises:
        GeomkitError: if none are named, or as :func:`geomkit.sources.load_source`.
    """
    from geomkit.errors import GeomkitError
    from geomkit.sources import load_source

    if not sources:
        raise GeomkitError("name at least one checkpoint, file or folder of embeddings")
    found = []
    for name, source in zip(short_names(sources), sources, strict=True):
        embeddings, part = load_source(
            source, data=data, split=split, device=device, download=download, workers=workers
        )
        loss = embeddings.meta.get("loss")
        label = name + (f", {part}" if part else "")
        found.append((label, embeddings, loss if isinstance(loss, str) else None))
    return found


def short_names(sources: Sequence[str]) -> list[str]:
    """The end of each path, as much of it as tells it from the others.

    >>> short_names(["runs/a/ckpt.pt", "runs/b/ckpt.pt"]), short_names(["x/clip.pt", "x/cua.pt"])
    (['a/ckpt.pt', 'b/ckpt.pt'], ['clip.pt', 'cua.pt'])
    """
    parts = [Path(source).parts or (source,) for source in sources]
    depth = 1
    longest = max(map(len, parts), default=1)
    while depth < longest and len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def colours(losses: Sequence[str | None]) -> list[tuple[str, str]]:
    """A colour and marker a source: its loss's, if all have one and no two the same.

    >>> len({colour for colour, _ in colours([None, None, "cua"])})
    3
    """
    from geomkit.plots.style import LOSS_COLOURS, loss_colour, loss_marker

    found = [(loss_colour(loss), loss_marker(loss)) for loss in losses if loss is not None]
    if len(found) == len(losses) and len(set(found)) == len(found):
        return found
    names = list(LOSS_COLOURS)
    return [
        (LOSS_COLOURS[names[k % len(names)]], loss_marker(names[k % len(names)]))
        for k in range(len(losses))
    ]
