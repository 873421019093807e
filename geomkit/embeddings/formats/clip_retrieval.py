"""clip-retrieval's folder: ``img_emb/img_emb_0.npy``, ``text_emb/…``, ``metadata/….parquet``.

Shards go by their numbers. Text i belongs to image i of its shard, unless the metadata has a row
per text and a column ``image_index``, which counts the images of the whole folder.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geomkit._core.memory import check_parquet
from geomkit.embeddings.formats.npy import read_matrix
from geomkit.embeddings.manifest import KINDS, is_extraction
from geomkit.embeddings.ownership import check_index, integers
from geomkit.embeddings.reading import Format, Loaded, naming, natural_order, reading
from geomkit.embeddings.rows import ArrayShard, Shard
from geomkit.errors import GeomkitError

if TYPE_CHECKING:
    from pyarrow import Table

__all__ = ["FORMAT", "Owners", "numbered_files", "read_metadata", "read_shards", "stored_captions"]

Owners = tuple[np.ndarray | None, list[str]]
"""For each text of a shard the index of its image in the folder (``None``: text i belongs to image
i of the shard), and the ids of the images."""


def numbered_files(path: Path) -> dict[str, dict[int, Path]]:
    """The files of a folder by kind and shard number.

    Raises:
        GeomkitError: For a file without a number, or two with one number.
    """
    found: dict[str, dict[int, Path]] = {}
    for kind, suffix in KINDS.items():
        numbered = found[kind] = {}
        for file in natural_order((path / kind).glob(f"*{suffix}")):
            match = re.search(r"(\d+)$", file.stem)
            if match is None:
                raise GeomkitError(f"{file}: expected a shard number at the end of its name")
            first = numbered.setdefault(int(match.group(1)), file)
            if first != file:
                raise GeomkitError(
                    f"{file}: shard {int(match.group(1))} appears twice, see {first.name}"
                )
    return found


def read_shards(
    path: Path,
    found: dict[str, dict[int, Path]],
    owners: Callable[[Path | None, int, int, int], Owners],
) -> Loaded:
    """The shards of a folder, one below the other.

    Args:
        path: Path of the folder.
        found: Its files, from :func:`numbered_files`.
        owners: From the metadata of a shard, the number of images before it, and the numbers of
            its images and texts.

    Raises:
        GeomkitError: If a shard is missing, or as ``owners``.
    """
    images, texts, metadata = (found[kind] for kind in KINDS)
    if not images or not texts:
        missing, kept = ("text_emb", "img_emb") if images else ("img_emb", "text_emb")
        alone = path / kept if images or texts else path
        hint = f"; measure its rows alone as --image {alone}" if any(alone.glob("*.npy")) else ""
        raise GeomkitError(f"no {missing}/{missing}_*.npy; expected clip-retrieval's layout{hint}")
    expected = sorted({number for files in found.values() for number in files})
    for kind, files in found.items():
        gone = [number for number in expected if number not in files]
        if gone and (files or kind != "metadata"):
            raise GeomkitError(f"{path / kind}: shard {gone[0]} is missing, which others have")
    image: list[Shard] = []
    text: list[Shard] = []
    index: list[np.ndarray] = []
    ids: list[tuple[int, str]] = []
    first = 0
    for number in expected:
        parts = read_matrix(images[number]), read_matrix(texts[number])
        n, m = (sum(shard.shape[0] for shard in shards) for shards in parts)
        rows, names = owners(metadata.get(number), first, n, m)
        if rows is None:
            with naming(texts[number]):
                rows = check_index(None, n, m) + first
        image += parts[0]
        text += parts[1]
        index.append(rows)
        ids += [(number, name) for name in names]
        first += n
    distinct, notes = _distinct(ids)
    if absent := sorted(set(range(expected[-1])) - set(expected) - set(range(expected[0]))):
        notes.append(f"shards {_numbers(expected)}; without {_numbers(absent)}")
    others = sorted(file.parent.name for file in path.glob("*/*_0.npy"))
    if unused := [name for name in others if name not in KINDS]:
        notes.append(f"not used: {', '.join(unused)}; see --modality NAME=FOLDER")
    return Loaded(image, text, np.concatenate(index), distinct, notes=tuple(notes))


def _distinct(ids: list[tuple[int, str]]) -> tuple[tuple[str, ...], list[str]]:
    """Ids of all shards, each different, and what was done to make them so."""
    counts = Counter(name for _, name in ids)
    repeated = [name for name, count in counts.items() if count > 1]
    if not repeated:
        return tuple(name for _, name in ids), []
    about = f"{len(repeated)} ids repeat, such as '{repeated[0]}'"
    if len(set(ids)) == len(ids):
        return tuple(f"{k}/{name}" for k, name in ids), [f"{about}: they are read as SHARD/ID"]
    return (), [f"{about}, also within a shard: ids are left out"]


def _numbers(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return f"{shown} and {len(numbers) - 8} more" if len(numbers) > 8 else shown


def read_metadata(path: Path, images: int, texts: int) -> tuple[Table, np.ndarray | None]:
    """The metadata of a shard and its column ``image_index``, if it has one.

    Raises:
        GeomkitError: If it cannot be read, or has another number of rows than the shard.
    """
    with reading(path):
        import pyarrow.parquet

        with path.open("rb") as file:
            if file.read(4) != b"PAR1":
                raise GeomkitError(
                    "no Parquet file by its content; metadata is a table with a row per image, "
                    "and embeddings are .npy files in img_emb and text_emb"
                )
        check_parquet(path)
        table = pyarrow.parquet.read_table(path)
        index = None
        if "image_index" in table.column_names:
            index = integers("image_index", ArrayShard(table.column("image_index").to_numpy()))
        expected, kind = (images, "images") if index is None else (texts, "texts")
        if table.num_rows != expected:
            raise GeomkitError(f"{table.num_rows} rows for {expected} {kind}")
    return table, index


def stored_captions(path: Path, texts: int) -> list[str]:
    """Return the captions that the metadata of a folder holds, one for each row of the texts.

    Args:
        path: Path of the folder; of anything else, or without captions, there are none.
        texts: Number of rows of the texts.

    Raises:
        GeomkitError: If the metadata cannot be read.
    """
    captions: list[str] = []
    for _, file in sorted(numbered_files(path)["metadata"].items()) if path.is_dir() else ():
        with reading(file):
            import pyarrow.parquet

            check_parquet(file)
            if "caption" not in pyarrow.parquet.read_schema(file).names:
                return []
            column = pyarrow.parquet.read_table(file, columns=["caption"]).column(0)
            captions += ["" if text is None else str(text) for text in column.to_pylist()]
    return captions if len(captions) == texts else []


def _owners(metadata: Path | None, first: int, images: int, texts: int) -> Owners:
    if metadata is None:
        return None, []
    table, index = read_metadata(metadata, images, texts)
    name = next((c for c in ("id", "key", "image_path") if c in table.column_names), None)
    if index is not None or name is None:
        return index, []
    return None, [str(value) for value in table.column(name).to_pylist()]


def _matches(path: Path, head: bytes) -> bool:
    return path.is_dir() and not is_extraction(path)


FORMAT = Format(
    "a folder in clip-retrieval's layout",
    matches=_matches,
    read=lambda path: read_shards(path, numbered_files(path), _owners),
)
