"""The tensors of a TorchScript archive, read without compiling or running its code.

Such an archive is a zip: ``data.pkl`` describes the module's attributes, ``data/N`` holds the
bytes of storage N, ``code/`` the program, which is not read. The pickle is read by an unpickler
that can rebuild a tensor and refuses every other name.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.reading import reading

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["activation", "is_torchscript", "read_torchscript"]

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    # as_strided itself refuses what is out of bounds.
    ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, size, stride, *_: (
        storage.as_strided(tuple(size), tuple(stride), offset)
    ),
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
    ("collections", "OrderedDict"): OrderedDict,
    **{
        ("torch.jit._pickle", f"build_{kind}list"): list
        for kind in ("int", "tensor", "double", "bool")
    },
}
"""What the pickle may call, by module and name."""


def is_torchscript(path: Path) -> bool:
    """Return whether a file is an archive that ``torch.jit.save`` wrote."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return False
        with zipfile.ZipFile(path) as archive:
            return any(n.endswith("/constants.pkl") for n in archive.namelist())
    except Exception:  # a damaged directory: the reader of the file reports it
        return False


def activation(path: Path) -> str | None:
    """Return the activation that an archive's program computes, ``QuickGELU`` or ``GELU``.

    Its text is searched, not run. ``None`` for any other file, or if it names neither.
    """
    if not is_torchscript(path):
        return None
    with reading(path, "damaged"), zipfile.ZipFile(path) as archive:
        code = b"".join(
            archive.read(n) for n in archive.namelist() if "/code/" in n and n.endswith(".py")
        )
    if b"sigmoid(" in code:
        return "QuickGELU"
    return "GELU" if b"gelu(" in code else None


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return every tensor of the archive's module under its name in a ``state_dict``.

    Raises:
        GeomkitError: If the archive is damaged, or its pickle names anything but tensors.
    """
    with reading(path, "not an archive of tensors, or damaged"), zipfile.ZipFile(path) as archive:
        pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        if not pickles:
            raise GeomkitError(f"{path}: a zip, but no TorchScript archive (no data.pkl in it)")
        root = min(pickles, key=len).removesuffix("/data.pkl")
        byteorder = f"{root}/byteorder"
        if byteorder in archive.namelist() and archive.read(byteorder).strip() != b"little":
            raise GeomkitError(f"{path}: written on a big-endian machine; not supported")
        module = _Reader(archive, root).load()
    found: dict[str, Tensor] = {}
    _collect(module, "", found, set())
    if not found:
        raise GeomkitError(f"{path}: a TorchScript archive without a tensor")
    return found


class _Module:
    """Any module of the archive; only its attributes are kept."""

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        import torch

        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if (module, name) in _KNOWN:
            # A function of its own: a pickle can set attributes of whatever it is given.
            return lambda *arguments: _KNOWN[module, name](*arguments)
        if module == "torch" and name in _STORAGES:
            return getattr(torch, _STORAGES[name])
        raise pickle.UnpicklingError(
            f"its pickle names {module}.{name}, which is no tensor; refused, since loading it "
            "could run code"
        )

    def persistent_load(self, pid: Any) -> Tensor:
        import torch

        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"its pickle names an unknown object ({kind})")
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.root}/data/{key}"))
            if len(data) != count * dtype.itemsize:
                raise pickle.UnpicklingError(f"storage {key} is truncated")
            self.storages[key] = (
                torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            )
        return self.storages[key]


def _collect(module: Any, prefix: str, found: dict[str, Tensor], open_modules: set[int]) -> None:
    from torch import Tensor

    if id(module) in open_modules:  # an archive may be made to contain itself
        return
    open_modules.add(id(module))
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Tensor):
            found[f"{prefix}{name}"] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", found, open_modules)
    open_modules.discard(id(module))
