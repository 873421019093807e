"""Checkpoint: an opened model of any kind, with everything needed to give it inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geomkit.errors import GeomkitError
from geomkit.models.architectures import ModelConfig
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import VOCABULARY, Tokenizer

if TYPE_CHECKING:
    from geomkit.models.two_encoder import TwoEncoder

__all__ = ["Checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A two-encoder model, its inputs and where it comes from.

    Attributes:
        model: The model on the CPU, in float32 and evaluation mode.
        kind: Name of the checkpoint kind, such as ``geomkit`` or ``hf``.
        source: The SOURCE that names it.
        model_config: open_clip's model config.
        preprocess: Image preprocessing of the model.
        tokenizer: Tokenizer of the model.
        meta: What else the file says: for a geomkit checkpoint ``loss``, ``step``, ``epoch``,
            ``data``, ``config``, ``versions``; for others ``weights``, ``architecture``, ...; for
            all ``preprocess_from``, ``stripped`` (what was taken off the names of weights) and
            ``notes`` (see :attr:`notes`).
    """

    model: TwoEncoder
    kind: str
    source: str
    model_config: ModelConfig
    preprocess: Preprocess
    tokenizer: Tokenizer
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What the files do not say and was assumed, and what was left out of them, in words."""
        return list(self.meta.get("notes", ()))

    def check_inputs(self) -> None:
        """Refuse images and captions that the model does not take.

        Raises:
            GeomkitError: If the image size, the number of token ids or their range does not fit.
        """
        text, vision = self.model_config["text_cfg"], self.model_config["vision_cfg"]
        words, side = self.tokenizer, vision.get("image_size")
        length, known = text.get("context_length", 77), text.get("vocab_size", VOCABULARY)
        if isinstance(side, int) and side != self.preprocess.size:
            problem = f"its images are of {self.preprocess.size} px, the model takes {side}"
        elif text.get("hf_model_name"):
            return
        elif words.context_length > length:
            problem = f"its tokenizer gives {words.context_length} ids, the model takes {length}"
        elif words.path is None and known < words.size:
            problem = f"its tokenizer has {words.size} ids, the model {known}"
        else:
            return
        raise GeomkitError(f"{self.source}: {problem}")
