"""What a SOURCE string means: a model with data, or a file or folder of embeddings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._core.files import is_torch_file
from geomkit.embeddings.embeddings import Embeddings, from_loaded
from geomkit.embeddings.formats import read
from geomkit.embeddings.formats.npy import read_matrix
from geomkit.embeddings.formats.pt import of_content
from geomkit.embeddings.reading import naming
from geomkit.embeddings.rows import Rows
from geomkit.errors import GeomkitError, unknown_name

if TYPE_CHECKING:
    from geomkit.models.checkpoints import Checkpoint

__all__ = [
    "MODEL_PREFIXES",
    "has_model_prefix",
    "load_modalities",
    "load_source",
    "open_source",
    "to_device",
]

MODEL_PREFIXES = ("open_clip", "hf", "openai", "paper")
"""What a word before a colon may be; any other is part of a path, such as a drive's letter."""


def has_model_prefix(source: str | Path) -> bool:
    """Whether a SOURCE says itself that it is a model.

    >>> has_model_prefix("hf:clip"), has_model_prefix("C:\\\\x.pt")
    (True, False)
    """
    prefix, colon, _ = str(source).partition(":")
    return bool(colon) and prefix in MODEL_PREFIXES


def open_source(source: str | Path, *, download: bool = False) -> Checkpoint:
    """A SOURCE opened as a model, for whoever has to run one.

    Args:
        source: see :func:`geomkit.models.checkpoints.open_model`.
        download: let the network be used for what is not on this machine yet.

    Raises:
        GeomkitError: as there, or if the source holds embeddings.
    """
    if not has_model_prefix(source):
        path = Path(source)
        _check_exists(path)
        if not path.is_dir() and not is_torch_file(path):
            raise GeomkitError(
                f"{path}: no model; expected a geomkit checkpoint, or one named "
                f"{', '.join(f'{prefix}:…' for prefix in MODEL_PREFIXES)}"
            )
    from geomkit.models.checkpoints import open_model

    return open_model(source, download=download)


def load_source(
    source: str | Path,
    *,
    data: str | None = None,
    split: str | None = None,
    device: str = "auto",
    download: bool = False,
    workers: int | None = None,
) -> tuple[Embeddings, str | None]:
    """Embeddings of a SOURCE, and the split they are of (``None`` for embeddings that do not say).

    Args:
        source: a model (see :func:`open_source`), or the path of embeddings (``.npz``, ``.npy``,
            ``.safetensors``, ``.parquet``, ``.pt`` of tensors, or a folder); of a path the content
            tells which.
        data: for a model, a DATA spec; for a checkpoint of ours, another than it was trained on.
        split: for a model, ``train``, ``val`` (the default) or ``all``.
        device: where to run a model, or to put embeddings; ``auto`` leaves those on the CPU.
        download: let a model's files be downloaded.
        workers: for a model, processes that decode pictures.

    Raises:
        GeomkitError: if there is no such file, it cannot be read, an option does not apply, or a
            model comes without data.
    """
    if has_model_prefix(source):
        if data is None:  # said before anything large is read
            raise GeomkitError(f"{source}: a model needs data; name some, as --data openmoji")
        loaded = open_source(source, download=download)
        return _embed(loaded, data=data, split=split or "val", device=device, workers=workers)
    path = Path(source)
    _check_exists(path)
    if not path.is_dir() and is_torch_file(path):
        from geomkit.models.checkpoints import FORMAT, read_torch_file
        from geomkit.models.checkpoints.opening import own_model
        from geomkit.models.checkpoints.torchscript import is_torchscript

        if is_torchscript(path):
            open_source(path)  # says what it is
        content = read_torch_file(path)
        if not isinstance(content, dict) or content.get("format") == FORMAT:
            loaded = own_model(content, str(path))
            return _embed(loaded, data=data, split=split or "val", device=device, workers=workers)
        _refuse_options(path, data, split)
        stored = of_content(path, content)
    else:
        _refuse_options(path, data, split)
        stored = read(path)
    return to_device(from_loaded(path, stored), device), stored.split


def load_modalities(paths: Mapping[str, str | Path], *, device: str = "auto") -> list[Embeddings]:
    """Every pair of two or more named matrices, each a ``.npy`` or a folder of them.

    Row i of one belongs to row i of the others.

    Raises:
        GeomkitError: for fewer than two, or files that cannot be read or do not fit.
    """
    if len(paths) < 2:
        raise GeomkitError(f"modalities: expected two or more, got {', '.join(paths) or 'none'}")
    matrices = {}
    for name, path in paths.items():
        if not Path(path).exists():
            raise GeomkitError(f"{path}: no such file")
        with naming(Path(path)):
            matrices[name] = Rows(read_matrix(Path(path)), name=name)
    lengths = {name: len(rows) for name, rows in matrices.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise GeomkitError(f"modalities: expected as many rows of each, got {counted}")
    return [
        to_device(
            Embeddings.of(
                matrices[a],
                matrices[b],
                modalities=(a, b),
                meta={"path": f"{paths[a]} {paths[b]}"},
            ),
            device,
        )
        for a, b in combinations(matrices, 2)
    ]


def to_device(embeddings: Embeddings, device: str) -> Embeddings:
    """The same rows as tensors on a device; ``auto`` and ``cpu`` leave them as they are.

    Raises:
        GeomkitError: if there is no such device here.
    """
    if device in ("auto", "cpu"):
        return embeddings
    import torch

    from geomkit._core.runtime import resolve_device

    target = resolve_device(device)
    if target == "cuda" and "LOCAL_RANK" in os.environ:  # each rank of a machine its own
        target = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    if target == "mps":
        raise GeomkitError("device 'mps': has no float64 to add up in; measure on the CPU")

    def moved(rows: Any) -> torch.Tensor:
        step = 65_536
        parts = [torch.from_numpy(rows[i : i + step]) for i in range(0, len(rows), step)]
        return torch.cat([part.to(target) for part in parts])

    image, text = moved(embeddings.image), moved(embeddings.text)
    meta = {**embeddings.meta, "norms": embeddings.norms, "device": target}
    return replace(embeddings, image=image, text=text, meta=meta)


def _check_exists(path: Path) -> None:
    if path.exists():
        return
    word, colon, _ = str(path).partition(":")
    if colon and len(word) > 1 and not any(mark in word for mark in "/\\."):
        raise unknown_name("prefix of a source", word, MODEL_PREFIXES)
    raise GeomkitError(f"{path}: no such file")


def _refuse_options(path: Path, data: str | None, split: str | None) -> None:
    for name, value in (("--data", data), ("--split", split)):
        if value is not None:
            raise GeomkitError(f"{path}: {name} applies to checkpoints, these are embeddings")


def _embed(
    loaded: Checkpoint, *, data: str | None, split: str, device: str, workers: int | None
) -> tuple[Embeddings, str | None]:
    """A split of some data through a model."""
    from geomkit._core import runtime
    from geomkit.data import load_data
    from geomkit.extraction import embed

    device = runtime.resolve_device(device)
    own: dict[str, Any] = loaded.meta if loaded.kind == "geomkit" else {}
    trained_on: dict[str, Any] = own.get("data") or {}
    spec = data or trained_on["spec"]
    pairs = load_data(
        spec,
        split=split,
        preprocess=loaded.preprocess,
        n=trained_on.get("n") if data is None and split == "train" else None,
    )
    precision = own["config"]["precision"] if own else runtime.resolve_precision("auto", device)
    embeddings = embed(loaded, pairs, device=device, precision=precision, workers=workers)
    told = ("loss", "step") if own else ("architecture", "weights", "preprocess_from")
    meta = {
        **embeddings.meta,
        "path": loaded.source,
        "kind": loaded.kind,
        "data": spec,
        **{key: loaded.meta[key] for key in told if key in loaded.meta},
        "device": device,
        "precision": precision,
    }
    return replace(embeddings, meta=meta), split
