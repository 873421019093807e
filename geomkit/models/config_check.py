"""Model configs that came with a file: types of their values, and no name of anything elsewhere.

What open_clip and timm do with a value of a wrong type is anything, and some of timm's arguments
name files that hold pickles.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from geomkit._core.schema import check_entries, check_schema
from geomkit.errors import GeomkitError
from geomkit.models.open_clip_source import config_classes

__all__ = ["check_config", "check_options", "depth"]

_LARGEST = 2**31
_WHOLE = {
    "embed_dim": int,
    "quick_gelu": bool,
    "custom_text": bool,
    "nonscalar_logit_scale": bool,
    "init_logit_scale": float,
    "init_logit_bias": float,
    "pad_id": int,
    "vision_cfg": dict,
    "text_cfg": dict,
    "multimodal_cfg": dict,
}
_INNER: Mapping[str, Mapping[str, Any]] = {
    "timm_kwargs": {
        "patch_size": int, "embed_dim": int, "depth": int, "num_heads": int, "mlp_ratio": float,
        "act_layer": str, "norm_eps": float,
    },
    "act_kwargs": {"approximate": str},
    "norm_kwargs": {"eps": float, "elementwise_affine": bool, "bias": bool},
    "tokenizer_kwargs": {
        "clean": str, "strip_sep_token": bool, "language": str, "use_fast": bool, "legacy": bool,
        "add_prefix_space": bool, "do_lower_case": bool, "padding_side": str,
        "truncation_side": str, "model_max_length": int,
    },
}  # fmt: skip
"""Arguments that a config may pass on; others could name files, or code."""


def check_config(config: Any, source: str) -> None:
    """Refuse a model config whose values are not of the types that open_clip declares.

    Args:
        config: open_clip's model config, as a file has it.
        source: Name of the file in errors.

    Raises:
        GeomkitError: Naming the entry.

    >>> check_config({"embed_dim": 4, "vision_cfg": {}, "text_cfg": {"width": "x"}}, "a.pt")
    Traceback (most recent call last):
    geomkit.errors.GeomkitError: a.pt: model config.text_cfg.width: expected a whole number, got 'x'
    """
    where = f"{source}: model config"
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise GeomkitError(f"{where}: expected an object with embed_dim, vision_cfg and text_cfg")
    check_entries(config, _WHOLE, f"{where}.")
    parts = ("vision_cfg", "text_cfg", "multimodal_cfg")
    for name, kind in zip(parts, config_classes(), strict=True):
        part: Any = config.get(name)
        if part is None and name == "multimodal_cfg":
            continue
        check_schema(part, dict, f"{where}.{name}")
        hints = typing.get_type_hints(kind)
        check_entries(part, hints, f"{where}.{name}.")
        if unknown := [key for key in part if key not in hints and key != "timm_kwargs"]:
            raise GeomkitError(f"{where}.{name}: unknown entry {str(unknown[0])[:60]!r}")
        for inner in _INNER:
            options = part.get(inner)
            if options is None:
                continue
            check_schema(options, dict, f"{where}.{name}.{inner}")
            check_options(options, f"{where}.{name}.{inner}", inner)
        timm = part.get("timm_model_name")
        if timm is not None and not re.fullmatch(r"\w+(\.\w+)*", timm):
            raise GeomkitError(
                f"{where}.{name}.timm_model_name: {timm!r} names a file or a place on a hub; "
                "refused: expected a name of timm's own"
            )
    for place, number in _numbers(config, where):
        if not abs(number) < _LARGEST:  # NaN, too
            raise GeomkitError(f"{place}: expected a number below 2^31, got {number}")


def check_options(options: Mapping[str, Any], where: str, kind: str = "tokenizer_kwargs") -> None:
    """Refuse arguments for a library that are not known to be harmless, or of a wrong type.

    Args:
        options: The arguments.
        where: Name of the file and entry in errors.
        kind: Entry of a model config that holds such arguments.

    Raises:
        GeomkitError: Naming the argument.
    """
    check_entries(options, _INNER[kind], f"{where}.")
    if unknown := [key for key in options if key not in _INNER[kind]]:
        raise GeomkitError(f"{where}: {unknown[0]!r} is refused; known: {', '.join(_INNER[kind])}")


def depth(config: Mapping[str, Any]) -> int:
    """Return the number of layers that a config, of open_clip's or transformers', asks for.

    >>> depth({"vision_cfg": {"layers": [1, 2]}, "text_cfg": {"layers": 3}, "num_hidden_layers": 4})
    10
    """
    found = 0
    for name, value in config.items():
        if isinstance(value, Mapping):
            found += depth(value)
        elif name in ("layers", "depth", "n_layer") or str(name).endswith("_layers"):
            numbers = value if isinstance(value, list | tuple) else [value]
            found += sum(n for n in numbers if isinstance(n, int) and n > 0)
    return found


def _numbers(value: Any, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for name, held in value.items():
            yield from _numbers(held, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _numbers(held, place)
    elif isinstance(value, int | float):
        yield place, value
