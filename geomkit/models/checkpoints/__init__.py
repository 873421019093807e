"""Checkpoints: ours, open_clip's, Hugging Face's, OpenAI's and the paper's."""

from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.opening import open_model
from geomkit.models.checkpoints.own import (
    FORMAT,
    SCHEMA_VERSION,
    Record,
    Snapshot,
    TrainedRun,
    load_run,
    read_torch_file,
    save_run,
    weights_sha256,
)

__all__ = [
    "FORMAT",
    "SCHEMA_VERSION",
    "Checkpoint",
    "Record",
    "Snapshot",
    "TrainedRun",
    "load_run",
    "open_model",
    "read_torch_file",
    "save_run",
    "weights_sha256",
]
