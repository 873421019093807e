"""A training run as geomkit stores it: one file with all that measuring or resuming it needs."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geomkit._core.files import atomic_write
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import TwoEncoder

__all__ = [
    "FORMAT", "SCHEMA_VERSION", "Record", "Snapshot", "TrainedRun", "load_run", "read_torch_file",
    "save_run",
]  # fmt: skip

FORMAT = "geomkit-checkpoint"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Record:
    """One evaluation of a training run.

    Attributes:
        step, epoch: Optimizer steps and passes over the training pairs done.
        split: Split of the evaluated pairs.
        pairs: Number of evaluated pairs.
        lr: Learning rate of the last step.
        temperature: Temperature τ.
        train_terms: Each weighted term of the last step's loss.
        loss: Loss of the evaluated pairs in batches of the training's size.
        metrics: Metrics of the evaluated pairs by name.
    """

    step: int
    epoch: float
    split: str
    pairs: int
    lr: float
    temperature: float
    train_terms: dict[str, float]
    loss: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Snapshot:
    """Embeddings of a 3-D run's first evaluated pairs.

    Attributes:
        step: Optimizer steps done.
        image, text: Unit rows ``(n, 3)``.
    """

    step: int
    image: Tensor
    text: Tensor


@dataclass(frozen=True)
class TrainedRun:
    """The content of a geomkit checkpoint.

    Attributes:
        state_dict: Weights in open_clip's names.
        optimizer: State of the optimizer.
        epoch, step: Epochs and optimizer steps done.
        rng: States of the random generators: ``cpu``, and ``cuda``, a list.
        model_config: open_clip's model config.
        preprocess: The model's preprocessing.
        tokenizer: The model's tokenizer.
        loss: The loss as a weighted sum.
        config: The training configuration as plain values.
        data: DATA spec, number of pairs, evaluated split and fingerprint of the data.
        history: One record per evaluation.
        snapshots: Embeddings of a 3-D run's pairs, one entry per evaluation.
        versions: Versions of the packages that trained it.
        ranks: Number of processes that trained it.
    """

    state_dict: dict[str, Tensor]
    optimizer: dict[str, Any]
    epoch: int
    step: int
    rng: dict[str, Any]
    model_config: dict[str, Any]
    preprocess: Preprocess
    tokenizer: Tokenizer
    loss: str
    config: dict[str, Any]
    data: dict[str, Any]
    ranks: int
    history: list[Record]
    snapshots: list[Snapshot]
    versions: dict[str, str]

    @staticmethod
    def from_dict(content: Any, source: str | Path) -> TrainedRun:
        """The run in the content of a torch file.

        Args:
            content: Whatever the file holds.
            source: Its name in an error.

        Raises:
            GeomkitError: if it is no geomkit checkpoint, is incomplete, or is newer than this
                version.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise GeomkitError(f"{source}: a torch file, but not a checkpoint written by geomkit")
        version = content.get("schema_version")
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise GeomkitError(
                f"{source}: written in schema version {version}, this geomkit reads up to "
                f"{SCHEMA_VERSION}; upgrade geomkit"
            )
        content = {"ranks": 1, **content}  # early files lack it
        names = [field.name for field in fields(TrainedRun)]
        missing = [name for name in names if name not in content]
        if missing:
            raise GeomkitError(f"{source}: damaged checkpoint, missing {', '.join(missing)}")
        try:
            typed = {
                "preprocess": Preprocess.from_dict(content["preprocess"]),
                "tokenizer": Tokenizer.from_dict(content["tokenizer"]),
                "history": [Record(**record) for record in content["history"]],
                "snapshots": [Snapshot(**snapshot) for snapshot in content["snapshots"]],
            }
        except (GeomkitError, TypeError) as error:
            raise GeomkitError(f"{source}: damaged checkpoint ({error})") from None
        return TrainedRun(**{name: content[name] for name in names} | typed)

    def as_dict(self) -> dict[str, Any]:
        """The content of the file, as plain values and tensors."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        typed = {
            "preprocess": self.preprocess.as_dict(),
            "tokenizer": self.tokenizer.as_dict(),
            "history": [dict(vars(record)) for record in self.history],
            "snapshots": [dict(vars(snapshot)) for snapshot in self.snapshots],
        }
        return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **values, **typed}

    def model(self, source: str = "checkpoint") -> TwoEncoder:
        """The trained model, in evaluation mode on the CPU.

        Args:
            source: Name of the checkpoint in an error.

        Raises:
            GeomkitError: if the weights do not fit the stored config.
        """
        from geomkit.models.checkpoints.fit import fitted

        return fitted(self.model_config, self.state_dict, source)


def save_run(path: str | Path, run: TrainedRun) -> None:
    """Write a checkpoint atomically; an older one at the same place survives until it is whole.

    Raises:
        GeomkitError: if it cannot be written.
    """
    try:
        with atomic_write(Path(path), overwrite=True) as file:
            torch.save(run.as_dict(), file)
    except RuntimeError as error:
        # torch's zip writer turns the file's own error into one of its own.
        raise GeomkitError(
            f"{path}: cannot be written ({str(error).splitlines()[0]}); what was there is untouched"
        ) from error


def load_run(path: str | Path) -> TrainedRun:
    """Read a geomkit checkpoint onto the CPU.

    Raises:
        GeomkitError: as :func:`read_torch_file` and :meth:`TrainedRun.from_dict`.
    """
    return TrainedRun.from_dict(read_torch_file(path), path)


def read_torch_file(path: str | Path) -> Any:
    """Whatever a torch file holds, on the CPU; only plain tensors and containers are unpickled.

    Raises:
        GeomkitError: if the file is missing, truncated, foreign, or a pickle that would have to be
            executed.
    """
    path = Path(path)
    if path.is_dir():
        raise GeomkitError(f"{path}: is a folder; name a checkpoint file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise GeomkitError(f"{path}: no such file") from None
    except PermissionError:
        raise GeomkitError(f"{path}: not readable; check its permissions") from None
    except pickle.UnpicklingError as error:
        if "weights" in str(error).lower() and "unsupported" in str(error).lower():
            raise GeomkitError(
                f"{path}: holds more than plain tensors and containers; refused, since loading it "
                "could run code"
            ) from None
        raise GeomkitError(f"{path}: not a checkpoint, or damaged") from None
    except Exception as error:  # torch raises what its readers raise on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GeomkitError(f"{path}: not a checkpoint, or truncated ({reason})") from None


def weights_sha256(state_dict: dict[str, Tensor]) -> str:
    """A checksum over names, shapes and bytes of all weights, in order of their names.

    >>> weights_sha256({"a": torch.zeros(1)}) == weights_sha256({"a": torch.zeros(1)})
    True
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
