"""What a SOURCE string means: a model with data, or a file or folder of embeddings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit.embeddings.embeddings import Embeddings, from_loaded, read_embeddings
from geomkit.embeddings.folders import read_manifest
from geomkit.embeddings.formats import OWNERS, Loaded, ownership, read_matrix
from geomkit.embeddings.rows import Rows
from geomkit.errors import GeomkitError, unknown_name

if TYPE_CHECKING:
    from geomkit.models.checkpoints import Checkpoint

__all__ = [
    "MODEL_PREFIXES",
    "has_model_prefix",
    "is_torch_file",
    "load_modalities",
    "load_source",
    "open_source",
    "tensors_loaded",
    "to_device",
]

MODEL_PREFIXES = ("open_clip", "hf", "openai", "paper")
"""What a word before a colon may be; any other is part of a path, such as a drive's letter."""
_NUMPY_HEADS = (b"\x93NUMPY",)


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
        return to_device(from_loaded(path, tensors_loaded(path, content)), device), None
    _refuse_options(path, data, split)
    embeddings = to_device(read_embeddings(path), device)
    manifest = read_manifest(path) if path.is_dir() else None
    if manifest is None:
        return embeddings, None
    described = manifest["data"]
    meta = {**embeddings.meta, "data": described["spec"], "model": manifest["model"]["source"]}
    return replace(embeddings, meta=meta), described["split"]


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
        try:
            matrices[name] = Rows(read_matrix(Path(path)), name=name)
        except GeomkitError as error:
            text = str(error)
            raise GeomkitError(text if str(path) in text else f"{path}: {text}") from None
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


def tensors_loaded(path: Path, content: dict[str, Any]) -> Loaded:
    """Embeddings among what a torch file holds: ``image``, ``text``, and whose each text is.

    Raises:
        GeomkitError: if there are none, or they are of a wrong rank or type.
    """
    import torch

    from geomkit.embeddings.formats import tensor_shard

    found = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not {"image", "text"} <= set(found):
        raise GeomkitError(
            f"{path}: a torch file, but neither a checkpoint written by geomkit nor tensors "
            f"'image' and 'text'; another's model is named open_clip:NAME/{path}, openai:{path} or "
            f"paper:{path}"
        )
    for key in ("image", "text"):
        if found[key].ndim != 2:
            shape = tuple(found[key].shape)
            raise GeomkitError(f"{path}: {key}: expected an (n, d) matrix, got shape {shape}")
    owners = {}
    for key in OWNERS:
        if key in found:
            owners[key] = found[key].numpy()
            if owners[key].ndim != 1 or not np.issubdtype(owners[key].dtype, np.integer):
                raise GeomkitError(
                    f"{path}: {key}: expected a row of integers, got {found[key].dtype}"
                )
    index, ids = ownership(path, owners)
    image, text = tensor_shard(found["image"]), tensor_shard(found["text"])
    return Loaded([image], [text], index, ids)


def is_torch_file(path: Path) -> bool:
    """Whether torch wrote it, told without importing torch: a zip with a pickle in a folder."""
    import zipfile

    try:
        with path.open("rb") as file:
            head = file.read(6)
    except OSError as error:
        raise GeomkitError(f"{path}: cannot be read ({error.strerror or error})") from None
    if head in _NUMPY_HEADS:
        return False
    if head[:4] == b"PK\x03\x04":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith("/data.pkl") for name in archive.namelist())
        except Exception:  # zipfile raises what a damaged directory makes it
            # Cut short: let the reader that its suffix asks for say so.
            return path.suffix != ".npz"
    return path.suffix in (".pt", ".pth", ".ckpt", ".bin")


def _embed(
    loaded: Checkpoint, *, data: str | None, split: str, device: str, workers: int | None
) -> tuple[Embeddings, str | None]:
    """A split of some data through a model."""
    from geomkit._core import runtime
    from geomkit.data import load_data
    from geomkit.extraction.encode import extract

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
    embeddings = extract(
        loaded.model.to(device),
        pairs,
        loaded.preprocess,
        loaded.tokenizer,
        device=device,
        precision=precision,
        workers=workers,
    )
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
