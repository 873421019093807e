"""Weights into a model: the keys of both must match, and the first that does not is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geomkit.errors import GeomkitError
from geomkit.models.architectures import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

    from geomkit.models.two_encoder import TwoEncoder

__all__ = ["fitted"]

_DERIVED = (
    "position_ids", "attn_mask", "input_resolution", "context_length", "vocab_size", "n_averaged",
)  # fmt: skip
"""Entries that other versions, OpenAI's archives and averages of weights store; not needed."""


def fitted(
    config: ModelConfig, state_dict: dict[str, Tensor], source: str, *, what: str = "its model"
) -> TwoEncoder:
    """Return a model with the given weights, cast to its precision, in evaluation mode.

    No random state is consumed.

    Args:
        config: open_clip's model config.
        state_dict: Weights in open_clip's names.
        source: Name of the weights in errors.
        what: Name of the model in errors.

    Raises:
        GeomkitError: If open_clip refuses the config, or a key is missing, unknown or of another
            shape.
    """
    import torch

    from geomkit.models.two_encoder import build

    try:
        with torch.random.fork_rng(devices=[]):
            model = build(config)
    except GeomkitError as error:
        raise GeomkitError(f"{source}: {error}") from None
    wanted = model.clip.state_dict()
    found = {
        k: v for k, v in state_dict.items() if k in wanted or k.rpartition(".")[2] not in _DERIVED
    }
    for key in ("logit_scale", "logit_bias"):  # a scalar, or a vector of one number
        if key in wanted and key in found and found[key].numel() == 1:
            found[key] = found[key].reshape(wanted[key].shape)
    problems = {
        "missing": [f"'{k}'" for k in wanted if k not in found],
        "unknown": [f"'{k}'" for k in found if k not in wanted],
        "shape of": [
            f"'{k}' {tuple(v.shape)} for {tuple(wanted[k].shape)}"
            for k, v in found.items()
            if k in wanted and v.shape != wanted[k].shape
        ],
    }
    told = [
        f"{word} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for word, names in problems.items()
        if names
    ]
    if told:
        raise GeomkitError(f"{source}: its weights do not fit {what}: {'; '.join(told)}")
    model.clip.load_state_dict(found)
    return model.eval()
