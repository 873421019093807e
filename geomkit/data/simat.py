"""SIMAT's tables, photographs and verdicts, all of which a user supplies.

Couairon et al., Embedding Arithmetic for Text-driven Image Transformation, 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from geomkit._core.files import refusing
from geomkit.data.declarations import Dataset
from geomkit.data.files import FileImages, Place
from geomkit.data.pairs import PairData
from geomkit.data.table import Table
from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.preprocess import Preprocess

__all__ = ["DATASET", "SIMAT_SPLITS", "THRESHOLD", "Simat", "load_simat", "simat_tables"]

SIMAT_SPLITS = ("dev", "test")
THRESHOLD = 0.5
"""OSCAR's similarity above which a photograph shows what a caption says."""


@dataclass(frozen=True)
class Simat:
    """SIMAT's queries of one split.

    Attributes:
        regions: Region ids of ``n`` photographs, in the order of the rows of OSCAR's matrix.
        folders: Name of each photograph's folder, which is its caption.
        source: Index of the photograph that each query starts from, shape ``(q,)``.
        target: Caption that the answer should have, as a column of OSCAR's matrix, shape ``(q,)``.
        words: Word removed and word added, shape ``(q, 2)``.
        field: What is changed, ``subj``, ``rel`` or ``obj``, shape ``(q,)``.
        weight: Weight norm2^−½, shape ``(q,)``.
    """

    regions: tuple[str, ...]
    folders: tuple[str, ...]
    source: np.ndarray
    target: np.ndarray
    words: np.ndarray
    field: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        """Count of queries."""
        return len(self.source)

    def take(self, queries: np.ndarray) -> Simat:
        """The same photographs with some of the queries."""
        columns = ("source", "target", "words", "field", "weight")
        return replace(self, **{name: getattr(self, name)[queries] for name in columns})


def simat_tables(root: str | Path, *, split: str = "dev") -> Simat:
    """Read ``triplets.csv`` and ``transfos.csv``.

    A query's photograph is found by its region through ``triplets.csv``, as SIMAT's own code does;
    ``transfos.csv`` has a column ``dataset_id`` of an older numbering.

    Args:
        root: Folder with the tables, or the folder that holds it as ``simat_db``.
        split: ``dev`` or ``test``.

    Raises:
        GeomkitError: If a table is missing, damaged, or does not fit the other.
    """
    if split not in SIMAT_SPLITS:
        raise unknown_name("split of SIMAT", split, SIMAT_SPLITS)
    folder = _folder(Path(root))
    path = folder / "triplets.csv"
    triplets = _table(path, ("region_id", "subj", "rel", "obj", "dataset_id"))
    with refusing(ValueError, says=f"{path}: dataset_id is no number"):
        rows = {t["region_id"]: int(t["dataset_id"]) for t in triplets}
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
    with refusing(ValueError, says=f"{path}: target_ids or norm2 is no number"):
        target = np.array([int(q["target_ids"]) for q in queries])
        norms = np.array([float(q["norm2"]) for q in queries])
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
    table = Table(path, columns)
    rows = [dict(zip(columns, cells, strict=True)) for _, cells in table.rows()]
    if table.bad:
        number, why = table.bad[0]
        raise GeomkitError(f"{path}: row {number}: {why}")
    return rows


def load_simat(
    root: str | Path, *, preprocess: Preprocess, split: str = "dev", max_bad: float = 0.01
) -> tuple[Simat, PairData, np.ndarray]:
    """Load tables, photographs and OSCAR's verdicts.

    Args:
        root: Folder, see :func:`simat_tables`.
        preprocess: Preprocessing of the model.
        split: ``dev`` or ``test``.
        max_bad: Largest share of photographs that may fail to decode.

    Returns:
        The queries, the ``n`` photographs, and whether each photograph shows each caption, shape
        ``(n, captions)``.

    Raises:
        GeomkitError: If something is missing, damaged, or a pickle that would have to be executed.
    """
    tables = simat_tables(root, split=split)
    folder = _folder(Path(root))
    right = _oscar(folder / "oscar_similarity_matrix.pt", tables)
    images = folder / "images"
    if not images.is_dir():
        raise GeomkitError(
            f"{images}: no such folder; expected one folder per caption, such as {_SHAPE}"
        )
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
    from geomkit.models.checkpoints.torch_file import read_torch_file

    scores = read_torch_file(path)
    n, captions = len(tables.regions), int(tables.target.max()) + 1
    shape = tuple(getattr(scores, "shape", ()))
    if len(shape) != 2 or shape[0] != n or shape[1] < captions:
        raise GeomkitError(
            f"{path}: expected a matrix of {n} photographs and {captions} captions or more, "
            f"got {shape or type(scores).__name__}"
        )
    return (scores.float() > THRESHOLD).numpy()


DATASET = Dataset(
    name="simat",
    load=load_simat,
    help="SIMAT's tables, photographs and oscar_similarity_matrix.pt",
    path="ROOT",
    splits=SIMAT_SPLITS,
    kinds=("queries",),
)
