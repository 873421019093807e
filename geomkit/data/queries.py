"""OpenMoji's variants as queries of multimodal arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geomkit.data.declarations import Progress
from geomkit.data.openmoji import resized_openmoji
from geomkit.data.pairs import PairData
from geomkit.data.registry import parse_spec, requested, with_options
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

__all__ = ["arithmetic_data", "arithmetic_spec", "same_held_out"]

_SINGLE = ("variants", "relations")
"""Ways to hold out single images of emoji whose other images are known."""


def arithmetic_spec(spec: str) -> str:
    """The spec of the OpenMoji data that has queries: with skin tones, and variants held out.

    Raises:
        GeomkitError: If it names another data set, or its options leave no queries.

    >>> arithmetic_spec("openmoji,seed=1")
    'openmoji,seed=1,skin_tones=true,hold_out=variants'
    """
    name, _, given = parse_spec(spec, "queries")
    if name != "openmoji":
        raise GeomkitError(f"data '{spec}': expected openmoji")
    if given.get("n") is not None or not given.get("skin_tones", True):
        raise GeomkitError(f"data '{spec}': arithmetic needs all images, skin tones included")
    if given.get("hold_out", "variants") not in _SINGLE:
        raise GeomkitError(
            f"data '{spec}': arithmetic needs single images of known emoji held out; give "
            f"{' or '.join(f'hold_out={way}' for way in _SINGLE)}, or leave it out"
        )
    missing = {"skin_tones": True, "hold_out": "variants"}
    return with_options(spec, **{k: v for k, v in missing.items() if k not in given})


def same_held_out(spec: str, other: str) -> bool:
    """Whether two specs of OpenMoji hold out the same images, whatever captions they have.

    >>> same_held_out("openmoji,hold_out=variants,skin_tones=true", "openmoji")
    False
    >>> same_held_out("openmoji,skin_tones=1,seed=0,groups=true", "openmoji,skin_tones=true")
    True
    """
    if {each.partition(",")[0] for each in (spec, other)} != {"openmoji"}:
        return False
    one, two = (parse_spec(each).options for each in (spec, other))
    default = {"hold_out": "bases", "seed": 0, "skin_tones": False, "n": None}
    return all(one.get(key, value) == two.get(key, value) for key, value in default.items())


def arithmetic_data(
    spec: str, preprocess: Preprocess, *, progress: Progress | None = None
) -> tuple[PairData, np.ndarray]:
    """All images of OpenMoji at a model's size, and whether each is held out.

    Args:
        spec: Spec as :func:`arithmetic_spec` returns it.
        preprocess: Preprocessing of the model.
        progress: Function called with the count of images drawn and the total, if they are not
            cached yet.

    Returns:
        The ``n`` images, and a mask of those held out, shape ``(n,)``.
    """
    request, options = requested(spec, split="all", preprocess=preprocess, progress=progress)
    data = resized_openmoji(request, **options)
    held_out = resized_openmoji(replace(request, split="val"), **options)
    return data, np.isin(data.ids, held_out.ids)
