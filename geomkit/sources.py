"""What a SOURCE string means: a model of some kind, or a file or folder of embeddings."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geomkit._core.files import cache_dir, from_home, is_torch_file
from geomkit.data import parse_spec
from geomkit.embeddings.embeddings import Clouds, Embeddings, from_loaded
from geomkit.embeddings.formats import read
from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.kinds import find_kind, model_forms, open_model
from geomkit.models.checkpoints.trained_run import TrainedRun, load_run

__all__ = ["open_source", "own_data", "read_source", "run_of", "trusted_spec"]


def open_source(source: str | Path, *, download: bool = False) -> Checkpoint:
    """Return the model that a SOURCE names, for whatever has to run one.

    Args:
        source: SOURCE of a model; see :func:`geomkit.models.checkpoints.kinds.open_model`.
        download: Whether files that are not on this machine may be downloaded.

    Raises:
        GeomkitError: If it holds embeddings, or as :func:`open_model` there.
    """
    path = Path(source := from_home(source))
    if find_kind(source) is None and not path.is_dir() and not is_torch_file(path):
        raise GeomkitError(
            f"{path}: no model; expected a geomkit checkpoint, or one named {model_forms()}"
        )
    return open_model(source, download=download)


def read_source(
    source: str | Path, *, columns: Mapping[str, str] | None = None
) -> tuple[list[Embeddings | Clouds], str | None]:
    """Return the embeddings that a SOURCE names, and their split if the files say it.

    Args:
        source: SOURCE of embeddings.
        columns: Name of the array of each modality, where a file names them otherwise.

    Returns:
        Embeddings of each pair of modalities, or clouds if there are no pairs, and the name of the
        split.

    Raises:
        GeomkitError: If they cannot be read.
    """
    path = Path(from_home(source))
    loaded = read(path, columns)
    return from_loaded(path, loaded), loaded.split


def run_of(source: str | Path) -> TrainedRun | None:
    """Return the training run of a geomkit checkpoint, or ``None`` for any other SOURCE.

    Raises:
        GeomkitError: If there is no such file, or it is damaged.
    """
    kind = find_kind(source := from_home(source))
    return load_run(source) if kind is not None and kind.name == "geomkit" else None


def own_data(checkpoint: Checkpoint, *, trust: bool = False) -> str | None:
    """Return the DATA spec that a geomkit checkpoint names, or ``None`` for any other model.

    Args:
        checkpoint: Opened checkpoint.
        trust: Whether the data may lie anywhere; else beside the checkpoint or in the cache.

    Raises:
        GeomkitError: If the data lie elsewhere: a checkpoint may come from a stranger.
    """
    held: dict[str, Any] = checkpoint.meta.get("data") or {}
    spec: str | None = held.get("spec")
    return None if spec is None else trusted_spec(spec, checkpoint.source, trust=trust)


def trusted_spec(spec: str, source: str, *, trust: bool = False) -> str:
    """Return the DATA spec that a checkpoint names, if its data may be read.

    Arguments and errors are those of :func:`own_data`.
    """
    if trust or (path := parse_spec(spec).path) is None:
        return spec
    place = re.split(r"[{*?\[]", path, maxsplit=1)[0]  # of a pattern, what precedes it
    folders = Path(source).parent, cache_dir()
    within = any(_real(place).is_relative_to(_real(folder)) for folder in folders)
    if not within or "../" in path[len(place) :]:
        raise GeomkitError(
            f"{source}: names the data '{spec}', which lie outside its folder; give "
            f"--data '{spec}', or --trust-data to read whatever a checkpoint names"
        )
    return spec


def _real(path: str | Path) -> Path:
    return Path(os.path.realpath(path))
