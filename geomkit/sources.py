"""What a SOURCE string means: a checkpoint with data, or a file or folder of embeddings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from geomkit.embeddings import Embeddings, from_loaded, read_embeddings
from geomkit.errors import GeomkitError
from geomkit.formats import OWNERS, Loaded, ownership, read_matrix
from geomkit.rows import Rows

__all__ = ["load_modalities", "load_source", "to_device"]

_NUMPY_HEADS = (b"\x93NUMPY",)


def load_source(
    source: str | Path,
    *,
    data: str | None = None,
    split: str | None = None,
    device: str = "auto",
) -> tuple[Embeddings, str | None]:
    """Embeddings of a SOURCE, and the split they are of (``None`` for embeddings on disk).

    Args:
        source: path of a geomkit checkpoint, or of embeddings (``.npz``, ``.npy``,
            ``.safetensors``, ``.parquet``, ``.pt`` of tensors, or a folder in clip-retrieval's
            layout); its content tells which.
        data: for a checkpoint, another DATA spec than the one it was trained on.
        split: for a checkpoint, ``train``, ``val`` (the default) or ``all``.
        device: where to run a checkpoint, or to put embeddings; ``auto`` leaves those on the CPU.

    Raises:
        GeomkitError: if there is no such file, it cannot be read, or an option does not apply.
    """
    path = Path(source)
    if not path.exists():
        raise GeomkitError(f"{path}: no such file")
    if not path.is_dir() and _is_torch_file(path):
        from geomkit.checkpoints import FORMAT, read_torch_file

        content = read_torch_file(path)
        if not isinstance(content, dict) or content.get("format") == FORMAT:
            return _from_checkpoint(path, content, data, split or "val", device)
        _refuse_options(path, data, split)
        return to_device(_from_tensors(path, content), device), None
    _refuse_options(path, data, split)
    return to_device(read_embeddings(path), device), None


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

    from geomkit._runtime import resolve_device

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


def _refuse_options(path: Path, data: str | None, split: str | None) -> None:
    for name, value in (("--data", data), ("--split", split)):
        if value is not None:
            raise GeomkitError(f"{path}: {name} applies to checkpoints, these are embeddings")


def _from_tensors(path: Path, content: dict[str, Any]) -> Embeddings:
    import torch

    from geomkit.formats import tensor_shard

    found = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not {"image", "text"} <= set(found):
        raise GeomkitError(
            f"{path}: a torch file, but neither a checkpoint written by geomkit nor tensors "
            "'image' and 'text'"
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
    return from_loaded(path, Loaded([image], [text], index, ids))


def _is_torch_file(path: Path) -> bool:
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
        except zipfile.BadZipFile:
            # Cut short: let the reader that its suffix asks for say so.
            return path.suffix != ".npz"
    return path.suffix in (".pt", ".pth", ".ckpt", ".bin")


def _from_checkpoint(
    path: Path, content: Any, data: str | None, split: str, device: str
) -> tuple[Embeddings, str | None]:
    from geomkit import _runtime
    from geomkit.checkpoints import as_checkpoint, load_model
    from geomkit.data import load_data
    from geomkit.extract import extract

    checkpoint = as_checkpoint(content, path)
    device = _runtime.resolve_device(device)
    trained_on: dict[str, Any] = checkpoint["data"]
    pairs = load_data(
        data or trained_on["spec"],
        split=split,
        size=checkpoint["preprocess"]["size"],
        n=trained_on["n"] if data is None and split == "train" else None,
    )
    model = load_model(checkpoint, source=str(path)).to(device)
    precision = checkpoint["config"]["precision"]
    embeddings = extract(
        model,
        pairs,
        checkpoint["preprocess"],
        checkpoint["tokenizer"],
        device=device,
        precision=precision,
    )
    meta = {
        **embeddings.meta,
        "path": str(path),
        "data": data or trained_on["spec"],
        "loss": checkpoint["loss"],
        "step": checkpoint["step"],
        "device": device,
        "precision": precision,
    }
    return replace(embeddings, meta=meta), split
