"""Checkpoints of every kind: geomkit's own, open_clip's, transformers', OpenAI's, the paper's.

A new kind is one more module of this package that declares a :class:`CheckpointKind` at its top
level. It imports torch inside its functions, so that prefixes are known without torch.
"""

from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.kinds import CheckpointKind, find_kind, kinds, open_model
from geomkit.models.checkpoints.torch_file import read_torch_file
from geomkit.models.checkpoints.trained_run import (
    Record,
    Snapshot,
    TrainedRun,
    load_run,
    save_run,
)
from geomkit.models.checkpoints.weights import weights_sha256

__all__ = [
    "Checkpoint",
    "CheckpointKind",
    "Record",
    "Snapshot",
    "TrainedRun",
    "find_kind",
    "kinds",
    "load_run",
    "open_model",
    "read_torch_file",
    "save_run",
    "weights_sha256",
]
