"""The files by which a folder of embeddings says that geomkit extracts or has extracted it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomkit._core.memory import check_file
from geomkit.errors import GeomkitError

__all__ = [
    "FORMAT", "KINDS", "MANIFEST", "PLAN", "SCHEMA_VERSION", "ShardEntry", "StoredFile",
    "cut_captions", "is_extraction", "read_json",
]  # fmt: skip

FORMAT = "geomkit-embeddings-folder"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
"""Written last: the folder is finished, and holds what this file says."""
PLAN = "plan.json"
"""What is being extracted into the folder, until it is finished."""
KINDS = {"img_emb": ".npy", "text_emb": ".npy", "metadata": ".parquet"}
"""The subfolders of clip-retrieval's layout, and the suffixes of their files."""


@dataclass(frozen=True)
class StoredFile:
    """Size and checksum of a file.

    Attributes:
        bytes: Number of bytes.
        sha256: SHA-256 of the content, in hexadecimal.
    """

    bytes: int
    sha256: str

    def fits(self, path: Path, *, sums: bool = True) -> bool:
        """Whether a file has this size, and this checksum unless sizes alone are compared."""
        if path.stat().st_size != self.bytes:
            return False
        if not sums:
            return True
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256


@dataclass(frozen=True)
class ShardEntry:
    """What a manifest says about a shard.

    Attributes:
        images: Number of image rows.
        texts: Number of text rows.
        files: The shard's files by their paths relative to the folder.
    """

    images: int
    texts: int
    files: Mapping[str, StoredFile]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ShardEntry:
        """The entry of a manifest; raises KeyError or TypeError if it is damaged."""
        files = {name: StoredFile(**stored) for name, stored in content["files"].items()}
        return cls(content["images"], content["texts"], files)


def is_extraction(folder: Path) -> bool:
    """Whether geomkit extracts, or has extracted, embeddings into a folder.

    Raises:
        GeomkitError: As :func:`read_json`.
    """
    return any(read_json(folder / name) is not None for name in (MANIFEST, PLAN))


def read_json(path: Path) -> dict[str, Any] | None:
    """A plan or manifest; ``None`` if there is no such file, or geomkit has not written it.

    Raises:
        GeomkitError: If it cannot be read, or is newer than this version.
    """
    check_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, RecursionError, ValueError):
        return None
    except OSError as error:
        raise GeomkitError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    version = content.get("schema_version")
    if type(version) is not int or version > SCHEMA_VERSION:
        raise GeomkitError(
            f"{path}: written in schema version {version}, this geomkit reads up to "
            f"{SCHEMA_VERSION}; upgrade geomkit"
        )
    return content


def cut_captions(count: int) -> tuple[str, ...]:
    """What to say of captions that are longer than a model's context; nothing of none.

    >>> cut_captions(1_200)
    ("captions cut at the end of the model's context: 1,200",)
    """
    return (f"captions cut at the end of the model's context: {count:,}",) if count else ()
