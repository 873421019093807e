"""What a data set declares of itself, and what it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.data.files import FileImages, Place
from geomkit.data.pairs import Images, LeftOut, PairData, from_lists, in_utf8, several
from geomkit.data.splits import in_split
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = ["Dataset", "Progress", "Request", "Value", "read_value", "share"]

Progress = Callable[[int, int], None]
"""Function called with the count done and the total while something is prepared."""
Value = str | int | float | bool
"""Value of an option of a DATA spec."""


_FLAGS = {
    **dict.fromkeys(["true", "yes", "1", "on"], True),
    **dict.fromkeys(["false", "no", "0", "off"], False),
}


def share(text: str) -> float:
    """A share, 0 to 1, from text."""
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise ValueError
    return value


_EXPECTED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    share: "a share, 0 to 1",
}


def read_value(kind: Callable[[str], Value], text: str) -> Value:
    """Value of an option from its text; ``bool`` reads true or false.

    Raises:
        ValueError: If the text does not fit.
    """
    try:
        return _FLAGS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        expected = _EXPECTED.get(kind)
        raise ValueError(f"expected {expected}" if expected else str(error)) from None


_EMPTY = ("", "nan", "none", "null")
_ALL_PAIRS: Mapping[str, Callable[[str], Value]] = {"n": int, "seed": int}
_FILE_PAIRS = {**_ALL_PAIRS, "max_bad": share, "draft": bool, "distinct": bool}


@dataclass(frozen=True)
class Dataset:
    """A data set that geomkit can load.

    Declared at the top level of any module of :mod:`geomkit.data` or
    :mod:`geomkit.data.labelled`, it is found by :func:`geomkit.data.registry.datasets`. Such a
    module is imported to list the names of data sets, so heavy packages are imported where they
    are used.

    Attributes:
        name: Name in a DATA spec.
        load: Function from a :class:`Request` and the options as keyword arguments to
            :class:`~geomkit.data.pairs.PairData`, or to
            :class:`~geomkit.data.labelled.classes.ClassData` for ``classes``.
        help: What the data set is, in one line.
        options: Options of its own, each with ``str``, ``int``, ``float``, ``bool`` or a function
            from text to value.
        path: Word for the path after ``NAME:``, such as ``ROOT``; empty if it has none.
        splits: Splits it may have.
        licence: Licence of the images, where they all have one.
        attribution: Attribution to show with the images.
        kinds: ``pairs``, ``classes`` (labelled images) or ``queries`` (multimodal arithmetic).
        form: How a spec is written; default: ``NAME:PATH``, or ``NAME`` without a path.
        find: Function that refuses a request whose path leads nowhere, at little cost; it is called
            before anything heavy is imported. Default: none.
        picture: Function from the id of an image and a side in px to its picture, uint8, where
            single images are drawn rather than decoded.
    """

    name: str
    load: Callable[..., Any]
    help: str
    options: Mapping[str, Callable[[str], Value]] = field(default_factory=dict)
    path: str = ""
    splits: tuple[str, ...] = ("train", "val", "all")
    licence: str = ""
    attribution: str = ""
    kinds: tuple[str, ...] = ("pairs",)
    form: str = ""
    find: Callable[[Request], Any] = lambda request: None
    picture: Callable[[str, int], np.ndarray] | None = None

    @property
    def spec(self) -> str:
        """How a spec of it is written."""
        return self.form or (f"{self.name}:{self.path}" if self.path else self.name)

    @property
    def all_options(self) -> Mapping[str, Callable[[str], Value]]:
        """Options of its own, then those that every data set of pairs has.

        These are ``n`` (number of pairs), ``seed`` (random seed that chooses them and the pairs
        held out), and for images in files ``max_bad`` (share of images that may fail to decode),
        ``draft`` (whether the JPEG decoder may reduce large images; default: false) and
        ``distinct`` (only the first image of each main caption).
        """
        if "pairs" not in self.kinds:
            return self.options
        return {**self.options, **(_FILE_PAIRS if self.path else _ALL_PAIRS)}


@dataclass(frozen=True)
class Request:
    """What a data set is asked for.

    Attributes:
        dataset: Data set.
        spec: DATA spec, recorded with the data.
        path: Path in the spec; empty if the data set takes none.
        split: ``train``, ``val``, ``test`` or ``all``; of labelled images also several joined by
            ``+``, or empty for the data set's default.
        preprocess: Preprocessing that gives the size and geometry of the images.
        seed: Random seed of the split.
        draft: Whether the JPEG decoder may reduce large images (``--fast-decode``).
        max_bad: Largest share of images that may fail to decode.
        progress: Function called while the data set is prepared.
        n: Number of training pairs that are chosen in the end; ``None`` for all.
        distinct: Whether only the first image of each main caption is kept in the end.
    """

    dataset: Dataset
    spec: str
    path: str
    split: str
    preprocess: Preprocess
    seed: int = 0
    draft: bool = False
    max_bad: float = 0.01
    progress: Progress | None = None
    n: int | None = None
    distinct: bool = False

    def folder(self) -> Path:
        """The folder at the path.

        Raises:
            GeomkitError: If there is none.
        """
        if not (root := Path(self.path).expanduser()).is_dir():
            raise self.missing("folder")
        return root

    def missing(self, wanted: str, path: str | Path | None = None) -> GeomkitError:
        """The error for a path that does not exist; a misspelt option would be part of it."""
        path, known = str(path or self.path), self.dataset.all_options
        _, comma, part = path.rpartition(",")
        hint = "; check the path"
        if known and comma and "=" in part:
            key = part.partition("=")[0]
            hint = f" (or is '{key}' an option? known: {', '.join(known)})"
        if "://" in path:
            hint = "; this is a URL: download it, then give its path"
        elif "\\" in path and Path(path.replace("\\", "/")).exists():
            hint = "; write / for \\"
        return GeomkitError(f"{self.dataset.name}: {path}: no such {wanted}{hint}")

    def check_share(self, where: str, bad: Mapping[str, str], total: int) -> None:
        """Refuse more captions that cannot be read than the share of ``max_bad``.

        Args:
            where: Beginning of the message.
            bad: Reason for each, by name.
            total: Number of all.

        Raises:
            GeomkitError: If there are more; the message names the first.
        """
        if len(bad) > self.max_bad * total:
            name, why = next(iter(bad.items()))
            rest = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise GeomkitError(
                f"{where}: {name}: {why}{rest}: {len(bad)} of {total}, more than the share of "
                f"{self.max_bad:g} allowed; correct them or raise --max-bad"
            )

    def pairs(
        self,
        names: Sequence[str],
        captions: Sequence[Sequence[str]],
        *,
        places: Sequence[Place],
        source: str,
        place: Sequence[int] | np.ndarray | None = None,
        spans: np.ndarray | None = None,
        ids: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        notes: Sequence[str] = (),
        left_out: Sequence[LeftOut] = (),
        reading: str = "",
    ) -> PairData:
        """The pairs of the split asked for, from all the images found in files.

        Args:
            names: Path of each of ``n`` images in its place.
            captions: Captions of each image.
            places: Folders, zip files and tar files that hold the images.
            source: What the images come from.
            place: Index in ``places`` for each image; default: all in the first.
            spans: First byte and length of each image in its tar, shape ``(n, 2)``.
            ids: Stable name of each image; default: ``names``.
            splits: Split of each image; default: the data has no splits of its own, and a fifth
                is held out for ``val``.
            notes: Remarks for the user.
            left_out: Images that the user gave and that are not among ``names``.
            reading: How the files were understood; the number of captions per image is added.

        An image is left out if one of its captions is no text in UTF-8 or longer than 100,000
        characters.

        Raises:
            GeomkitError: If the split is empty or does not exist.
        """
        place = np.zeros(len(names), int) if place is None else place
        images = FileImages(places, place, names, self.preprocess, draft=self.draft, spans=spans)
        if (lists := from_lists(captions)) is not None:
            captions, notes = lists, [*notes, "captions that are lists in a text: read as several"]
        empty = sum(text.strip().lower() in _EMPTY for texts in captions for text in texts)
        if empty:
            notes = [*notes, f"captions that are empty, nan, none or null: {empty:,}"]
        note = "; ".join(filter(None, notes))
        data = self.data(images, captions, ids or names, source, note=note)
        wrong: dict[str, list[int]] = {}
        for row, texts in enumerate(data.captions):
            if why := _unusable(texts):
                wrong.setdefault(why, []).append(row)
        for why, rows in wrong.items():
            left_out = [*left_out, *LeftOut.of(f"images with {why}", [data.ids[i] for i in rows])]
        if wrong:
            kept = np.setdiff1d(np.arange(len(data)), np.concatenate(list(wrong.values())))
            data, splits = data.take(kept), splits and [splits[i] for i in kept]
        data = replace(
            data,
            reading="; ".join(filter(None, [reading, several(captions)])),
            given=len(data) + sum(some.count for some in left_out),
            left_out=tuple(left_out),
        )
        return in_split(data, self.split, seed=self.seed, splits=splits)

    def data(
        self,
        images: np.ndarray | Images,
        captions: Iterable[Sequence[str]],
        ids: Sequence[str],
        source: str,
        *,
        index: np.ndarray | None = None,
        split: str = "all",
        note: str = "",
    ) -> PairData:
        """Pairs with what the spec and the data set say of them.

        Args:
            images: Images.
            captions: Captions of each pair.
            ids: Stable name of each pair.
            source: What the images come from.
            index: Rows of ``images`` that belong to the data; default: all, in order.
            split: Split that the pairs are.
            note: Remark for the user.
        """
        return PairData(
            self.spec,
            split,
            images,
            np.arange(len(ids)) if index is None else index,
            tuple(map(tuple, captions)),
            tuple(map(in_utf8, ids)),
            source,
            licence=self.dataset.licence,
            attribution=self.dataset.attribution,
            max_bad=self.max_bad,
            note=note,
        )


_LONGEST = 100_000
"""Characters of a caption. Models read some hundred; to tokenise millions takes hours."""


def _unusable(captions: Sequence[str]) -> str:
    """What is wrong with captions that no tokenizer should get; empty if nothing is."""
    if max(map(len, captions)) > _LONGEST:
        return f"a caption of more than {_LONGEST:,} characters"
    try:
        "".join(captions).encode()
    except UnicodeEncodeError:  # a byte that is not UTF-8, or half of a surrogate pair
        return "a caption that is not UTF-8"
    return ""
