"""LoadedModel: a model of whatever origin, with everything needed to feed it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from geomkit.models.two_encoder import TwoEncoder

__all__ = ["LoadedModel"]


@dataclass(frozen=True)
class LoadedModel:
    """A two-encoder model as it was found.

    Attributes:
        model: on the CPU, in float32 and evaluation mode.
        kind: ``geomkit``, ``open_clip``, ``hf``, ``openai`` or ``paper``.
        source: the SOURCE that names it.
        model_config: open_clip's model config.
        preprocess: ``size`` (one side in px), ``mode``, ``mean``, ``std``, ``interpolation``,
            ``resize_mode``, ``fill_color``; see :func:`geomkit.data.decode.prepare`.
        tokenizer: see :func:`geomkit.models.two_encoder.tokenize`.
        meta: what else the file says: for a checkpoint of ours its ``loss``, ``step``, ``data``,
            ``config``.
    """

    model: TwoEncoder
    kind: str
    source: str
    model_config: dict[str, Any]
    preprocess: dict[str, Any]
    tokenizer: dict[str, Any]
    meta: dict[str, Any] = field(default_factory=dict)
