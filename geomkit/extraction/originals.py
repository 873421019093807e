"""The images and captions that rows were made of, to show them beside the rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.data import PairData, load_data
from geomkit.embeddings.embeddings import Embeddings
from geomkit.embeddings.formats.clip_retrieval import stored_captions
from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.trained_run import TrainedRun
from geomkit.models.preprocess import Preprocess
from geomkit.sources import trusted_spec

__all__ = ["UNKNOWN", "Originals", "captions_of", "pairs_of_embeddings", "pairs_of_run"]

_SIDE = 96
"""Side in px of images that are only looked at."""


@dataclass(frozen=True)
class Originals:
    """Images and captions of embeddings, as far as they are to be had.

    Attributes:
        captions: Caption of each row of the texts; empty if they are not known.
        data: The images, row by row, with all captions of each.
        notes: Why something is not to be had, or may not be what was embedded.
    """

    captions: tuple[str, ...] = ()
    data: PairData | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        embeddings: Embeddings,
        split: str | None = None,
        *,
        data: str | None = None,
        trust: bool = False,
    ) -> Originals:
        """Find them in the data that were embedded; captions first in the embeddings' folder.

        Arguments are those of :func:`pairs_of_embeddings`.

        Raises:
            GeomkitError: If ``data`` was given and does not fit.
        """
        path = "" if "kind" in embeddings.meta else embeddings.meta.get("path", "")
        stored = tuple(stored_captions(Path(path), embeddings.m)) if path else ()
        try:
            pairs, said = pairs_of_embeddings(
                embeddings, split, embeddings.n, data=data, trust=trust
            )
            return cls(stored or tuple(captions_of(embeddings, pairs)), pairs, said)
        except GeomkitError as error:
            if data is not None:
                raise
            what = "images" if stored else "captions and images"
            return cls(stored, None, (f"no {what}: {error}",))


UNKNOWN = Originals()
"""Neither images nor captions are known."""


def pairs_of_run(run: TrainedRun, source: str, count: int, *, trust: bool = False) -> PairData:
    """Return the first pairs that the snapshots of a training run show, row by row.

    Args:
        run: Content of a checkpoint with snapshots.
        source: The SOURCE that names it.
        count: Largest number of pairs.
        trust: Whether the data that it names may lie anywhere, see
            :func:`geomkit.sources.own_data`.

    Raises:
        GeomkitError: If the data cannot be read, are not those of the run, or may not be trusted.
    """
    spec = trusted_spec(run.data["spec"], source, trust=trust)
    trained = load_data(spec, preprocess=run.preprocess, n=run.data["n"])
    known, split = run.data.get("fingerprint", {}), run.data.get("split", "train")
    if trained.fingerprint["sha256"] != known.get("sha256"):
        raise GeomkitError(f"'{spec}': not the pairs that {source} was trained on")
    data = trained
    if split != "train":
        data = load_data(spec, split=split, preprocess=run.preprocess)
    # Images that did not decode have no row.
    count, bad = min(count, len(run.snapshots[0].image)), len(data) - run.history[-1].pairs
    rows = data.read(slice(count + bad))[1] if bad > 0 else np.arange(len(data))
    if bad < 0 or len(rows) < count:
        raise GeomkitError(f"'{spec}': not the {split} pairs that {source} evaluated")
    return data.take(rows[:count])


def pairs_of_embeddings(
    embeddings: Embeddings,
    split: str | None,
    count: int,
    *,
    data: str | None = None,
    trust: bool = False,
) -> tuple[PairData, tuple[str, ...]]:
    """Return the first pairs that were embedded, row by row, found by their ids.

    The second value says whether the images may be others than those that were embedded: an
    extracted folder stores lengths and times of the image files, other files of embeddings do not.

    Args:
        embeddings: What :func:`geomkit.extraction.load.load_source` returned.
        split: The split that it returned.
        count: Largest number of pairs.
        data: DATA spec of embeddings from a file that do not name their data; their ids are those
            of its images.
        trust: Whether the data that a folder of embeddings names may lie anywhere, see
            :func:`geomkit.sources.own_data`.

    Raises:
        GeomkitError: If no data are named, they cannot be read, lack an id, or lie elsewhere and
            may not be trusted.
    """
    meta: dict[str, Any] = embeddings.meta
    spec = data or meta.get("data")
    if not embeddings.ids:
        raise GeomkitError("these embeddings have no ids to find their images by")
    if spec is None:
        raise GeomkitError("these embeddings do not name their data")
    if data is None and "kind" not in meta:  # the folder may come from a stranger
        spec = trusted_spec(spec, str(Path(meta["path"]) / "shards"), trust=trust)
    found = load_data(spec, split=split or "all", preprocess=Preprocess(_SIDE))
    places = {name: row for row, name in enumerate(found.ids)}
    try:
        rows = np.array([places[name] for name in embeddings.ids[:count]], int)
    except KeyError as missing:
        raise GeomkitError(f"'{found.spec}': image {missing} is no longer there") from None
    return found.take(rows), () if "kind" in meta else _unlike(meta, found)


def _unlike(meta: dict[str, Any], found: PairData) -> tuple[str, ...]:
    """What is not certain, or not so, of data that embeddings from a file were made of."""
    shown = f"images and captions shown are those of '{found.spec}' now, found by their ids"
    if "lengths_and_times" not in meta:
        return (f"{shown}; these embeddings do not say which files they were made of",)
    if meta.get("count") != len(found):
        return (f"{shown}; it had {meta.get('count'):,} images then, {len(found):,} now",)
    if meta["lengths_and_times"] != found.state(copied=True):
        return (f"{shown}; some of its image files were replaced after they were embedded",)
    return ()


def captions_of(embeddings: Embeddings, data: PairData) -> list[str]:
    """Return the caption of each row of the texts.

    Args:
        embeddings: Embeddings of both modalities.
        data: Their pairs, as :func:`pairs_of_embeddings` returns them.

    Raises:
        GeomkitError: If an image has another number of captions than of rows.
    """
    index = embeddings.image_index
    counts = np.bincount(index, minlength=embeddings.n)
    for row, captions in enumerate(data.captions):
        if counts[row] != len(captions):
            raise GeomkitError(
                f"'{data.spec}': image {data.ids[row]} has {len(captions)} captions, but "
                f"{counts[row]} rows were embedded"
            )
    order = np.argsort(index, kind="stable")
    texts = [""] * embeddings.m
    for row, caption in zip(order, (c for group in data.captions for c in group), strict=True):
        texts[row] = caption
    return texts
