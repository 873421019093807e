"""Checkpoint: a model of whatever origin, with everything needed to feed it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import TwoEncoder

__all__ = ["Checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A two-encoder model as it was found.

    Attributes:
        model: on the CPU, in float32 and evaluation mode.
        kind: ``geomkit``, ``open_clip``, ``hf``, ``openai`` or ``paper``.
        source: the SOURCE that names it.
        model_config: open_clip's model config.
        preprocess: what it does to an image.
        tokenizer: what it does to a caption.
        meta: what else the file says: for a checkpoint of ours its ``loss``, ``step``, ``data``,
            ``config``.
    """

    model: TwoEncoder
    kind: str
    source: str
    model_config: dict[str, Any]
    preprocess: Preprocess
    tokenizer: Tokenizer
    meta: dict[str, Any] = field(default_factory=dict)
