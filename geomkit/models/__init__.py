"""Two-encoder models: architectures, tokenizers, preprocessing, projections and checkpoints.

Importing this package does not import torch; the names that need it are imported when first read.
"""

from typing import TYPE_CHECKING

from geomkit._core.lazy import lazy_exports
from geomkit.models.architectures import ModelConfig, model_config, model_names
from geomkit.models.checkpoints import Checkpoint, CheckpointKind, TrainedRun, load_run, open_model
from geomkit.models.freezing import freeze
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer

if TYPE_CHECKING:
    from geomkit.models.projections import change_dim
    from geomkit.models.two_encoder import TwoEncoder, build

__all__ = [
    "Checkpoint",
    "CheckpointKind",
    "ModelConfig",
    "Preprocess",
    "Tokenizer",
    "TrainedRun",
    "TwoEncoder",
    "build",
    "change_dim",
    "freeze",
    "load_run",
    "model_config",
    "model_names",
    "open_model",
]

__getattr__ = lazy_exports(
    __name__, {"projections": ["change_dim"], "two_encoder": ["TwoEncoder", "build"]}
)
