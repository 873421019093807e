"""Weights into a model: the keys of both must match, and the first that does not is named."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from geomkit._core.memory import check_memory
from geomkit.errors import GeomkitError
from geomkit.models.architectures import ModelConfig
from geomkit.models.checkpoints.text_model import local_text_model
from geomkit.models.config_check import check_config, depth
from geomkit.models.open_clip_source import config_classes

if TYPE_CHECKING:
    from torch import Tensor

    from geomkit.models.two_encoder import TwoEncoder

__all__ = ["fitted", "is_plain"]

_INITIAL = ("init_logit_scale", "init_logit_bias")
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


def is_plain(config: ModelConfig, state_dict: dict[str, Tensor]) -> bool:
    """Whether weights are all that a plain CLIP has: two transformers of default blocks, in fp32.

    They fit it then, and a model need not be built to know so.

    Args:
        config: open_clip's model config, checked.
        state_dict: Weights in open_clip's names.
    """
    import torch

    if depth(config) > len(state_dict):
        return False
    wanted = _plain_shapes(config)
    return wanted == {name: tuple(weight.shape) for name, weight in state_dict.items()} and all(
        weight.dtype == torch.float32 and weight.layout == torch.strided and not weight.is_meta
        for weight in state_dict.values()
    )


def _plain_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights of a plain CLIP by name; none for any other model."""
    image, text, _ = config_classes()
    v, t = image(**config["vision_cfg"]), text(**config["text_cfg"])
    sizes = ("layers", "width", "head_width", "heads", "patch_size", "image_size",
             "context_length", "vocab_size")  # fmt: skip
    held = {name: getattr(part, name) for part in (v, t) for name in sizes if hasattr(part, name)}
    rest = [(a, b, f.name) for a, b in ((v, image()), (t, text())) for f in fields(a)]
    if (
        any(getattr(a, name) != getattr(b, name) for a, b, name in rest if name not in sizes)
        or not all(isinstance(size, int) and size > 0 for size in held.values())
        or not config.keys() <= {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", *_INITIAL}
        or any((v.width % v.head_width, t.width % t.heads, v.image_size % v.patch_size))
    ):
        return {}
    dim, cells = config["embed_dim"], (v.image_size // v.patch_size) ** 2
    bias = {} if config.get("init_logit_bias") is None else {"logit_bias": ()}
    return {
        "logit_scale": (),
        **bias,
        "visual.class_embedding": (v.width,),
        "visual.positional_embedding": (cells + 1, v.width),
        "visual.conv1.weight": (v.width, 3, v.patch_size, v.patch_size),
        "visual.proj": (v.width, dim),
        **_layer("visual.ln_pre", v.width),
        **_layer("visual.ln_post", v.width),
        **_blocks("visual.transformer", v.layers, v.width),
        "token_embedding.weight": (t.vocab_size, t.width),
        "positional_embedding": (t.context_length, t.width),
        "text_projection": (t.width, dim),
        **_layer("ln_final", t.width),
        **_blocks("transformer", t.layers, t.width),
    }


def _layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _blocks(name: str, layers: int, width: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for start in (f"{name}.resblocks.{k}" for k in range(layers)):
        found |= _layer(f"{start}.ln_1", width) | _layer(f"{start}.ln_2", width)
        found |= {f"{start}.attn.in_proj_weight": (3 * width, width)}
        found |= {f"{start}.attn.in_proj_bias": (3 * width,)}
        found |= _layer(f"{start}.attn.out_proj", width, width)
        found |= _layer(f"{start}.mlp.c_fc", 4 * width, width)
        found |= _layer(f"{start}.mlp.c_proj", width, 4 * width)
    return found


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
