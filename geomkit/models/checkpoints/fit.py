"""Weights into a model: every key of both has to match, and the first that does not is named."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geomkit.errors import GeomkitError
from geomkit.models.two_encoder import TwoEncoder, build

__all__ = ["fit", "fitted"]

_DERIVED = ("position_ids", "attn_mask", "input_resolution", "context_length", "vocab_size")
"""Stored among the weights by other versions and by OpenAI's archives, and known without."""


def fit(
    model: TwoEncoder, state_dict: dict[str, Tensor], source: str, *, what: str = "its model"
) -> TwoEncoder:
    """Put weights into a model, cast to its own precision, and set it to evaluation.

    Args:
        model: as :func:`geomkit.models.two_encoder.build` makes it.
        state_dict: in open_clip's names.
        source: what to call the weights in an error.
        what: what to call the model in an error.

    Raises:
        GeomkitError: if a key is missing, unknown or of another shape.
    """
    wanted = model.clip.state_dict()
    found = {
        k: v for k, v in state_dict.items() if k in wanted or k.rpartition(".")[2] not in _DERIVED
    }
    for key in ("logit_scale", "logit_bias"):  # a number, or one number in a row
        if key in wanted and key in found and found[key].numel() == 1:
            found[key] = found[key].reshape(wanted[key].shape)
    missing = [f"'{k}'" for k in wanted if k not in found]
    unknown = [f"'{k}'" for k in found if k not in wanted]
    shapes = [
        f"'{k}' {tuple(v.shape)} for {tuple(wanted[k].shape)}"
        for k, v in found.items()
        if k in wanted and v.shape != wanted[k].shape
    ]
    problems = [
        f"{word} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for word, names in (("missing", missing), ("unknown", unknown), ("shape of", shapes))
        if names
    ]
    if problems:
        raise GeomkitError(f"{source}: its weights do not fit {what}: {'; '.join(problems)}")
    model.clip.load_state_dict(found)
    return model.eval()


def fitted(
    config: dict[str, Any], state_dict: dict[str, Tensor], source: str, *, what: str = "its model"
) -> TwoEncoder:
    """A model of a config with these weights, on the CPU; no random state is consumed.

    Raises:
        GeomkitError: as :func:`geomkit.models.two_encoder.build` and :func:`fit`.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            model = build(config)
    except GeomkitError as error:
        raise GeomkitError(f"{source}: {error}") from None
    return fit(model, state_dict, source, what=what)
