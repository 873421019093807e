"""geomkit's own checkpoints: one file with all that measuring or resuming a training run needs."""

from __future__ import annotations

import sys
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from geomkit._core.files import atomic_write
from geomkit._core.schema import check_entries, check_schema
from geomkit.errors import GeomkitError
from geomkit.models.architectures import ModelConfig
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.fit import fitted
from geomkit.models.checkpoints.kinds import CheckpointKind, named_as
from geomkit.models.checkpoints.torch_file import read_torch_file
from geomkit.models.config_check import check_config
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from geomkit.models.two_encoder import TwoEncoder

__all__ = ["KIND", "Record", "Snapshot", "TrainedRun", "load_run", "save_run"]

_FORMAT = "geomkit-checkpoint"
_SCHEMA_VERSION = 1
_DATA = {"spec": str, "split": str, "n": int, "fingerprint": dict}
_CONFIG = {"precision": str, "threads": int, "steps": int}
"""Types of what other modules read of these."""
_META = ("loss", "step", "epoch", "data", "config", "versions")


@dataclass(frozen=True)
class Record:
    """One evaluation of a training run.

    Attributes:
        step: Optimizer steps done.
        epoch: Passes over the training pairs done.
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
        image: Unit rows ``(n, 3)`` of the images.
        text: Unit rows ``(n, 3)`` of their captions.
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
        epoch: Epochs done.
        step: Optimizer steps done.
        rng: States of the random generators: ``cpu``, and ``cuda``, a list.
        model_config: open_clip's model config.
        preprocess: Image preprocessing of the model.
        tokenizer: Tokenizer of the model.
        loss: The loss as a weighted sum of terms.
        config: The training configuration as plain values.
        data: DATA spec, number of pairs, evaluated split and fingerprint of the data.
        ranks: Number of processes that trained it.
        history: One record per evaluation.
        snapshots: Embeddings of the pairs of a 2-D or 3-D run, one entry per evaluation.
        versions: Versions of the packages that trained it.
    """

    state_dict: dict[str, Tensor]
    optimizer: dict[str, Any]
    epoch: int
    step: int
    rng: dict[str, Any]
    model_config: ModelConfig
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
        """Return the run in the content of a torch file.

        Args:
            content: Whatever the file holds.
            source: Name of the file in errors.

        Raises:
            GeomkitError: If it is no geomkit checkpoint, is incomplete, or is newer than this
                version.
        """
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise GeomkitError(
                f"{source}: a torch file, but not a checkpoint written by geomkit; name another "
                f"model as {named_as(source)}"
            )
        version = content.get("schema_version")
        if not isinstance(version, int) or version > _SCHEMA_VERSION:
            raise GeomkitError(
                f"{source}: written in schema version {version}, this geomkit reads up to "
                f"{_SCHEMA_VERSION}; upgrade geomkit"
            )
        from torch import Tensor

        content = {"ranks": 1, **content}  # missing in the earliest files
        names = [field.name for field in fields(TrainedRun)]
        missing = [name for name in names if name not in content]
        if missing:
            raise GeomkitError(f"{source}: damaged checkpoint, missing {', '.join(missing)}")
        values = {name: content[name] for name in names}
        where = f"{source}: damaged checkpoint: "
        hints = get_type_hints(TrainedRun, localns={"Tensor": Tensor})
        for name, kind in {**hints, "preprocess": dict, "tokenizer": dict}.items():
            check_schema(values[name], kind, where + name, names={"Tensor": Tensor})
        check_config(values["model_config"], str(source))
        check_entries(values["data"], _DATA, f"{where}data.")
        check_entries(values["config"], _CONFIG, f"{where}config.")
        snapshots = [Snapshot(**snapshot) for snapshot in content["snapshots"]]
        typed = {
            "preprocess": Preprocess.from_dict(content["preprocess"], where=f"{where}preprocess"),
            "tokenizer": Tokenizer.from_dict(content["tokenizer"], where=f"{where}tokenizer"),
            "history": [Record(**record) for record in content["history"]],
            "snapshots": snapshots,
        }
        for snapshot in snapshots:
            if {snapshot.image.shape[1:], snapshot.text.shape[1:]} not in ({(3,)}, {(2,)}):
                raise GeomkitError(f"{where}snapshots: expected rows of two or three numbers")
        return TrainedRun(**values | typed)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the file: plain values and tensors."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        typed = {
            "preprocess": self.preprocess.as_dict(),
            "tokenizer": self.tokenizer.as_dict(),
            "history": [dict(vars(record)) for record in self.history],
            "snapshots": [dict(vars(snapshot)) for snapshot in self.snapshots],
        }
        return {"format": _FORMAT, "schema_version": _SCHEMA_VERSION, **values, **typed}

    def opened(self, source: str = "checkpoint") -> Checkpoint:
        """Return the trained model with its inputs.

        Args:
            source: Name of the checkpoint, in errors too.

        Raises:
            GeomkitError: If the weights do not fit the stored model config.
        """
        return self.around(fitted(self.model_config, self.state_dict, source), source)

    def around(self, model: TwoEncoder | None, source: str) -> Checkpoint:
        """Return a model with the inputs of this run.

        Args:
            model: The model; ``None`` where only its inputs are looked at.
            source: Name of the checkpoint, in errors too.
        """
        return Checkpoint(
            cast(Any, model),
            "geomkit",
            source,
            self.model_config,
            # Stored first in what is extracted with it.
            self.preprocess.explicit(first=True),
            self.tokenizer,
            {**{key: getattr(self, key) for key in _META}, "preprocess_from": "the checkpoint"},
        )


def save_run(path: str | Path, run: TrainedRun) -> None:
    """Write a geomkit checkpoint atomically; an older one at the path survives until it is whole.

    Args:
        path: File to write.
        run: Its content.

    Raises:
        GeomkitError: If it cannot be written.
    """
    import torch

    with atomic_write(Path(path), overwrite=True) as file:
        content = run.as_dict()
        weights = content.pop("state_dict")
        torch.save({**_unshared(content), "state_dict": weights}, file)


def _unshared(value: Any) -> Any:
    """The same value with containers of its own and each string once.

    A pickle refers to what it holds already, and a resumed run shares other objects than a whole
    one: without this, files of equal content would differ.
    """
    if type(value) is str:
        return sys.intern(value)
    if isinstance(value, dict):
        return {_unshared(key): _unshared(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_unshared, value))
    return value


def load_run(path: str | Path) -> TrainedRun:
    """Read a geomkit checkpoint onto the CPU.

    Args:
        path: File to read.

    Raises:
        GeomkitError: As :func:`read_torch_file` and :meth:`TrainedRun.from_dict`.
    """
    return TrainedRun.from_dict(read_torch_file(path), path)


def _matches(path: Path) -> bool:
    """Whether the pickle of a torch file mentions the format; needs no torch."""
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [n for n in archive.namelist() if n.endswith("/data.pkl")]
            return any(_FORMAT.encode() in archive.read(name) for name in pickles)
    except Exception:  # a folder, no zip, a damaged directory: the reader of the file reports it
        return False


KIND = CheckpointKind(
    "geomkit",
    "geomkit checkpoint",
    open=lambda place, *, source, download: load_run(place).opened(source),
    matches=_matches,
    knows_data=True,
)
