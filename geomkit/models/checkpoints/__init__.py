"""Checkpoints: ours, open_clip's, Hugging Face's, OpenAI's and the paper's."""

from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.opening import open_model
from geomkit.models.checkpoints.own import (
    FORMAT,
    SCHEMA_VERSION,
    as_checkpoint,
    load_checkpoint,
    load_model,
    read_torch_file,
    save_checkpoint,
    weights_sha256,
)

__all__ = [
    "FORMAT",
    "SCHEMA_VERSION",
    "Checkpoint",
    "as_checkpoint",
    "load_checkpoint",
    "load_model",
    "open_model",
    "read_torch_file",
    "save_checkpoint",
    "weights_sha256",
]
