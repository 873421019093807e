"""What a torch file holds, without executing anything in it."""

from __future__ import annotations

import contextlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geomkit._core.memory import check_file, check_memory
from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.kinds import named_as
from geomkit.models.checkpoints.plain_values import PLAIN_VALUES, NotPlainError
from geomkit.models.checkpoints.reading import reading
from geomkit.models.checkpoints.torchscript import is_torchscript

__all__ = ["read_torch_file"]

_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""How torch's files before version 1.6 begin."""
_PICKLE = "objects that pickle wrote, not torch.save"
_NAMED = re.compile(r"GLOBAL (\S+)")
_SHOWN = 3
_AS_WEIGHTS = (
    "load it where you trust it, and write torch.save(model.state_dict(), 'weights.pt') there"
)


def read_torch_file(path: str | Path) -> Any:
    """Return what a torch file holds, on the CPU.

    Only tensors, numpy's numbers and arrays, options (``argparse.Namespace``) and containers are
    unpickled.

    Raises:
        GeomkitError: If the file is missing, truncated, foreign, or holds a pickle that would have
            to be executed.
    """
    import torch
    from torch.serialization import safe_globals

    path = Path(path)
    if not path.exists():
        raise GeomkitError(f"{path}: no such file")
    if path.is_dir():
        raise GeomkitError(f"{path}: is a folder; name a model in it as {named_as(path)}")
    check_file(path)
    if is_torchscript(path):
        raise GeomkitError(f"{path}: a TorchScript archive; if it is OpenAI's CLIP, openai:{path}")
    _check_archive(path)
    with reading(path, "not a checkpoint, or truncated"), safe_globals(PLAIN_VALUES), _quiet():
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if isinstance(error.__context__, NotPlainError):
                what = f"{error.__context__} beside tensors"
            elif "nsupported" not in str(error):
                raise GeomkitError(f"{path}: not a checkpoint, or damaged") from None
            else:
                what = _refused(path, str(error))
        except RuntimeError as error:
            if "magic number" not in str(error):
                raise
            what = _PICKLE
    raise GeomkitError(
        f"{path}: holds {what}; refused, since reading that could run code: {_AS_WEIGHTS}"
    )


def _check_archive(path: Path) -> None:
    """Compare the checksums in a zip with its bytes, and its sizes with memory: torch does not.

    Raises:
        GeomkitError: If it is damaged or does not fit.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    with reading(path, "damaged"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        packed = sum(member.compress_size for member in members)
        check_memory(sum(member.file_size for member in members), str(path), packed=packed)
        if not any(member.CRC for member in members):
            return  # torch was told to write none
        for member in members:
            with archive.open(member) as content:
                while content.read(1 << 22):
                    pass


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickle's protocol, before it is refused
        yield


def _refused(path: Path, said: str) -> str:
    """What a file names that is not read, by torch's message or, in a zip, by its pickle."""
    from torch import serialization

    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
    if head[:1] == b"\x80" and head != _MAGIC:
        return _PICKLE
    found: list[str] = []
    with contextlib.suppress(Exception):  # no zip
        found = sorted(serialization.get_unsafe_globals_in_checkpoint(path))
    found = found or _NAMED.findall(said)
    if any(name.startswith("torch.nn.modules.") for name in found):
        own = [name for name in found if not name.startswith(("torch.", "builtins."))]
        return f"a whole model{f' ({own[0]})' if own else ''}, not its weights"
    if not found:
        return "more than tensors"
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{', '.join(found[:_SHOWN])}{more} beside tensors"
