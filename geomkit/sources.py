"""What a SOURCE string means: a checkpoint with data, or a file of embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from geomkit.embeddings import Embeddings, read_embeddings
from geomkit.errors import GeomkitError

__all__ = ["load_source"]

_NUMPY_HEADS = (b"\x93NUMPY",)


def load_source(
    source: str | Path,
    *,
    data: str | None = None,
    split: str | None = None,
    device: str = "auto",
) -> tuple[Embeddings, str | None]:
    """Embeddings of a SOURCE, and the split they are of (``None`` for a file of embeddings).

    Args:
        source: path of a geomkit checkpoint, or of ``.npz`` or ``.npy`` embeddings; its content
            tells which.
        data: for a checkpoint, another DATA spec than the one it was trained on.
        split: for a checkpoint, ``train``, ``val`` (the default) or ``all``.
        device: for a checkpoint, where to run it.

    Raises:
        GeomkitError: if there is no such file, it cannot be read, or an option does not apply.
    """
    path = Path(source)
    if not path.exists():
        raise GeomkitError(f"{path}: no such file")
    if path.is_dir():
        raise GeomkitError(f"{path}: is a folder; name a checkpoint, .npz or .npy file")
    if not _is_torch_file(path):
        for name, value in (("--data", data), ("--split", split)):
            if value is not None:
                raise GeomkitError(
                    f"{path}: {name} applies to checkpoints, this is a file of embeddings"
                )
        return read_embeddings(path), None
    return _from_checkpoint(path, data, split or "val", device)


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
    path: Path, data: str | None, split: str, device: str
) -> tuple[Embeddings, str | None]:
    from geomkit import _runtime
    from geomkit.checkpoints import load_checkpoint, load_model
    from geomkit.data import load_data
    from geomkit.extract import extract

    checkpoint = load_checkpoint(path)
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
