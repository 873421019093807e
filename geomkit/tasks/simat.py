"""SIMAT: Embedding Arithmetic for Text-driven Image Transformation (Couairon et al., 2021).

A query takes a photograph of "a cat sitting on grass", the words "cat" and "dog", and asks for a
photograph of a dog sitting on grass. The data set's own tables and scoring are followed: the
nearest photograph other than the query's own is right if OSCAR's similarity between it and the
target's caption is above one half, and a query counts by norm2^−½, so that frequent
transformations do not drown the rest. A user supplies tables, photographs and OSCAR's matrix.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.data.files import FileImages, Place
from geomkit.data.pairs import PairData
from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.own import read_torch_file
from geomkit.models.preprocess import Preprocess
from geomkit.tasks.arithmetic_result import ArithmeticResult, Part
from geomkit.tasks.features import class_weights, image_rows, placed
from geomkit.tasks.queries import moved, nearest
from geomkit.tasks.result import model_names

__all__ = ["SIMAT_SPLITS", "Simat", "load_simat", "simat", "simat_scores", "simat_tables"]

SIMAT_SPLITS = ("dev", "test")
THRESHOLD = 0.5
"""OSCAR's similarity above which a photograph shows what a caption says."""


@dataclass(frozen=True)
class Simat:
    """SIMAT's queries of one split.

    Attributes:
        regions: ``n`` region ids, in the order of the rows of OSCAR's matrix.
        folders: the caption that each photograph is filed under.
        source: ``(q,)``, the photograph that a query starts from.
        target: ``(q,)``, the caption that the answer is to fit: a column of OSCAR's matrix.
        words: ``(q, 2)``, what is taken away and what is added.
        field: ``(q,)``, what is changed: ``subj``, ``rel`` or ``obj``.
        weight: ``(q,)``, norm2^−½.
    """

    regions: tuple[str, ...]
    folders: tuple[str, ...]
    source: np.ndarray
    target: np.ndarray
    words: np.ndarray
    field: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.source)

    def take(self, queries: np.ndarray) -> Simat:
        """The same photographs with some of the queries."""
        return Simat(
            self.regions,
            self.folders,
            *(getattr(self, k)[queries] for k in ("source", "target", "words", "field", "weight")),
        )


def simat_tables(root: str | Path, *, split: str = "dev") -> Simat:
    """Read ``triplets.csv`` and ``transfos.csv``.

    A query's photograph is found by its region through ``triplets.csv``, as SIMAT's own code does;
    ``transfos.csv`` has a column ``dataset_id`` of an older numbering.

    Args:
        root: the folder with the tables, or the one that holds it as ``simat_db``.
        split: ``dev`` or ``test``.

    Raises:
        GeomkitError: if a table is missing, damaged, or does not fit the other.
    """
    if split not in SIMAT_SPLITS:
        raise unknown_name("split of SIMAT", split, SIMAT_SPLITS)
    folder = _folder(Path(root))
    path = folder / "triplets.csv"
    triplets = _table(path, ("region_id", "subj", "rel", "obj", "dataset_id"))
    try:
        rows = {t["region_id"]: int(t["dataset_id"]) for t in triplets}
    except ValueError as error:
        raise GeomkitError(f"{path}: dataset_id: {error}") from None
    if sorted(rows.values()) != list(range(len(triplets))):
        raise GeomkitError(f"{path}: expected dataset_id 0 to {len(triplets) - 1}, each once")
    triplets.sort(key=lambda t: rows[t["region_id"]])
    path = folder / "transfos.csv"
    columns = ("region_id", "field", "value", "target", "target_ids", "norm2", "is_test")
    wanted = {"dev": "false", "test": "true"}[split]
    queries = [q for q in _table(path, columns) if q["is_test"].lower() == wanted]
    if not queries:
        raise GeomkitError(f"{path}: no queries of the split {split}")
    strange = next((q["region_id"] for q in queries if q["region_id"] not in rows), None)
    if strange is not None:
        raise GeomkitError(f"{path}: region {strange} is not in {folder / 'triplets.csv'}")
    try:
        target = np.array([int(q["target_ids"]) for q in queries])
        norms = np.array([float(q["norm2"]) for q in queries])
    except ValueError as error:
        raise GeomkitError(f"{path}: target_ids or norm2: {error}") from None
    if (target < 0).any() or not (norms > 0).all():
        raise GeomkitError(f"{path}: expected target_ids of 0 or more and a positive norm2")
    return Simat(
        tuple(t["region_id"] for t in triplets),
        tuple(f"A {t['subj']} {t['rel']} {t['obj']}" for t in triplets),
        np.array([rows[q["region_id"]] for q in queries]),
        target,
        np.array([(q["value"], q["target"]) for q in queries]),
        np.array([q["field"] for q in queries]),
        norms**-0.5,
    )


def _folder(root: Path) -> Path:
    for folder in (root, root / "simat_db"):
        if (folder / "transfos.csv").exists():
            return folder
    raise GeomkitError(
        f"{root}: no SIMAT here; expected transfos.csv, triplets.csv, "
        "oscar_similarity_matrix.pt and images, in it or in its simat_db"
    )


def _table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [c for c in columns if c not in (reader.fieldnames or ())]
            if missing:
                raise GeomkitError(f"{path}: no column {missing[0]}; expected {', '.join(columns)}")
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GeomkitError(f"{path}: cannot be read ({error})") from None
    if any(line[c] is None for line in lines for c in columns):
        raise GeomkitError(f"{path}: a line is cut off; expected {', '.join(columns)}")
    return lines


def load_simat(
    root: str | Path, *, preprocess: Preprocess, split: str = "dev", max_bad: float = 0.01
) -> tuple[Simat, PairData, np.ndarray]:
    """Tables, photographs and OSCAR's verdicts.

    Args:
        root: see :func:`simat_tables`.
        preprocess: a model's.
        split: ``dev`` or ``test``.
        max_bad: largest share of photographs that may fail to decode.

    Returns:
        The queries; the ``n`` photographs; and whether each shows each caption, ``(n, captions)``.

    Raises:
        GeomkitError: if something is missing, damaged, or would have to be executed.
    """
    tables = simat_tables(root, split=split)
    folder = _folder(Path(root))
    right = _oscar(folder / "oscar_similarity_matrix.pt", tables)
    images = folder / "images"
    if not images.is_dir():
        raise GeomkitError(f"{images}: no such folder; expected one folder a caption, as {_SHAPE}")
    names = [f"{f}/{r}.jpg" for f, r in zip(tables.folders, tables.regions, strict=True)]
    data = PairData(
        spec=f"simat:{root}",
        split=split,
        images=FileImages([Place(str(images))], [0] * len(names), names, preprocess, draft=False),
        index=np.arange(len(names)),
        captions=tuple((f,) for f in tables.folders),
        ids=tables.regions,
        source=str(root),
        max_bad=max_bad,
    )
    return tables, data, right


_SHAPE = "images/A cat sitting on a grass/98316.jpg"


def _oscar(path: Path, tables: Simat) -> np.ndarray:
    scores = read_torch_file(path)
    n, captions = len(tables.regions), int(tables.target.max()) + 1
    shape = tuple(getattr(scores, "shape", ()))
    if len(shape) != 2 or shape[0] != n or shape[1] < captions:
        raise GeomkitError(
            f"{path}: expected a matrix of {n} photographs and {captions} captions or more, "
            f"got {shape or type(scores).__name__}"
        )
    return (scores.float() > THRESHOLD).numpy()


def simat_scores(
    image: np.ndarray,
    words: dict[str, np.ndarray],
    tables: Simat,
    right: np.ndarray,
    *,
    strength: float = 1.0,
) -> np.ndarray:
    """Credit ``(q,)`` of each query: whether its answer fits, a tie's share that does.

    Args:
        image: ``(n, d)`` unit rows of the photographs.
        words: unit rows ``(d,)`` of all words.
        tables: the queries.
        right: ``(n, captions)``, see :func:`load_simat`.
        strength: λ.
    """
    away, added = (np.stack([words[w] for w in tables.words[:, k]]) for k in (0, 1))
    query = moved(image, tables.source, added - away, strength)
    credit = np.zeros(len(tables))
    for part, _, shares in nearest(query, image, tables.source):
        credit[part] = (shares * right[:, tables.target[part]].T).sum(axis=1)
    return credit


def simat(
    loaded: Checkpoint,
    root: str | Path,
    *,
    split: str = "dev",
    strengths: Sequence[float] = (1.0,),
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 256,
    workers: int | None = None,
    max_bad: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> list[ArithmeticResult]:
    """SIMAT's score, in percent.

    Args:
        loaded: the model; it is moved to ``device``.
        root: see :func:`simat_tables`.
        split: ``dev``, as the paper, or ``test``.
        strengths: λ, any number.
        device, precision: as resolved.
        batch_size: photographs and words at a time.
        workers: processes that decode; ``None`` for one a core.
        max_bad: largest share of photographs that may fail to decode; queries from them are left
            out.
        progress: called with photographs done and in all.

    Returns:
        A result for each strength.

    Raises:
        GeomkitError: as :func:`load_simat`, or if the model gives rows that are not finite.
    """
    tables, data, right = load_simat(
        root, preprocess=loaded.preprocess, split=split, max_bad=max_bad
    )
    options: dict[str, Any] = {"device": device, "precision": precision, "batch_size": batch_size}
    vocabulary = sorted(set(tables.words.flat))
    model = placed(loaded, device=device, precision=precision)
    rows = class_weights(model, vocabulary, ["{}"], loaded.tokenizer, **options).numpy().T
    image, kept, bad = image_rows(loaded, data, workers=workers, progress=progress, **options)
    if len(kept) < len(data):
        place = np.full(len(data), -1)
        place[kept] = np.arange(len(kept))
        tables = tables.take(place[tables.source] >= 0)
        tables = Simat(tables.regions, tables.folders, place[tables.source], *_rest(tables))
        right = right[kept]
    words = dict(zip(vocabulary, rows, strict=True))
    architecture, weights = model_names(loaded)
    chance = (right.sum(axis=0)[tables.target] - right[tables.source, tables.target]) / (
        len(image) - 1
    )
    results = []
    for strength in strengths:
        credit = simat_scores(image, words, tables, right, strength=strength)
        parts = {"simat_score": weighted(credit, tables)}
        by_chance = {"simat_score": weighted(chance, tables).value}
        for name in np.unique(tables.field):
            some = tables.field == name
            parts[f"simat_score_{name}"] = weighted(credit[some], tables.take(some))
            by_chance[f"simat_score_{name}"] = weighted(chance[some], tables.take(some)).value
        results.append(
            ArithmeticResult(
                dataset=data.spec,
                split=split,
                strength=strength,
                difference="words",
                metrics={k: p.value for k, p in parts.items()},
                stderr={k: p.stderr for k, p in parts.items()},
                counts={k: p.n for k, p in parts.items()},
                chance=by_chance,
                gallery=len(image),
                model=architecture,
                pretrained=weights,
                source=loaded.source,
                bad=tuple(bad),
                meta={"weights": "norm2^-0.5", "device": device, "precision": precision},
            )
        )
    return results


def _rest(tables: Simat) -> tuple[np.ndarray, ...]:
    return tables.target, tables.words, tables.field, tables.weight


def weighted(credit: np.ndarray, tables: Simat) -> Part:
    """Weighted mean in percent; queries from one photograph are one draw."""
    weight = tables.weight / tables.weight.sum()
    value = float(weight @ credit)
    photographs, group = np.unique(tables.source, return_inverse=True)
    sums = np.bincount(group, weights=weight * (credit - value))
    count = len(photographs)
    error = float(np.sqrt((sums**2).sum() * count / (count - 1))) if count > 1 else float("nan")
    return Part(100.0 * value, 100.0 * error, len(credit))
