"""Weights into a model: the keys of both must match, and the first that does not is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geomkit._core.memory import check_memory
from geomkit.errors import GeomkitError
from geomkit.models.architectures import ModelConfig
from geomkit.models.checkpoints.text_model import local_text_model
from geomkit.models.config_check import check_config, depth

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

    check_config(config, source)
    config, encoder = local_text_model(config, source)
    if (layers := depth(config) + depth(encoder)) > len(state_dict):
        raise GeomkitError(
            f"{source}: its model config has {layers:,} layers, but its weights are only "
            f"{len(state_dict):,} arrays; they do not belong together"
        )
    try:
        with torch.random.fork_rng(devices=[]):
            # Without memory for it: what does not fit is refused before it is allocated.
            with torch.device("meta"), _schedules_on_cpu():
                planned = build(config)
            found = _fitting(planned, state_dict, source, what)
            held = [*planned.parameters(), *planned.buffers()]
            check_memory(sum(t.numel() * t.element_size() for t in held), f"{source}: {what}")
            model = build(config)
    except GeomkitError as error:
        text = str(error)
        raise GeomkitError(text if text.startswith(source) else f"{source}: {text}") from None
    model.clip.load_state_dict(found)
    return model.eval()


def _schedules_on_cpu() -> Any:
    """A context in which ``linspace`` has values: timm reads those of its schedules."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Schedules(TorchFunctionMode):
        def __torch_function__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            own = {"device": "cpu"} if func is torch.linspace else {}
            return func(*args, **{**own, **(kwargs or {})})

    return Schedules()


def _fitting(
    planned: TwoEncoder, state_dict: dict[str, Tensor], source: str, what: str
) -> dict[str, Tensor]:
    """The weights that a model takes; what does not fit is named."""
    import torch

    wanted = planned.clip.state_dict()
    found = {
        k: v for k, v in state_dict.items() if k in wanted or k.rpartition(".")[2] not in _DERIVED
    }
    for key in wanted:  # batch normalisation that was frozen counts no batches
        if key.endswith(".num_batches_tracked"):
            found.setdefault(key, torch.zeros((), dtype=torch.long))
    for key in ("logit_scale", "logit_bias"):  # a scalar, or a vector of one number
        if key in wanted and key in found and found[key].numel() == 1:
            found[key] = found[key].reshape(wanted[key].shape)
    known = [(k, v, wanted[k]) for k, v in found.items() if k in wanted]
    problems = {
        "missing": [f"'{k}'" for k in wanted if k not in found],
        "unknown": [f"'{k}'" for k in found if k not in wanted],
        "shape of": [
            f"'{k}' {tuple(v.shape)} for {tuple(w.shape)}"
            for k, v, w in known
            if v.shape != w.shape
        ],
        "type of": [
            f"'{k}' {str(v.dtype).removeprefix('torch.')}"
            for k, v, w in known
            if v.is_floating_point() != w.is_floating_point()
            or v.is_complex()
            or v.layout != torch.strided
            or v.is_meta
        ],
    }
    told = [
        f"{word} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for word, names in problems.items()
        if names
    ]
    if told:
        raise GeomkitError(f"{source}: its weights do not fit {what}: {'; '.join(told)}")
    return found
