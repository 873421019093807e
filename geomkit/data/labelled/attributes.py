"""OpenMoji's own attributes as classes, read from the code points of each image's id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from geomkit.data.declarations import Dataset, Request
from geomkit.data.labelled.classes import ClassData
from geomkit.data.openmoji import (
    ATTRIBUTION,
    GENDER_SIGNS,
    LICENCE,
    PEOPLE,
    TONES,
    resized_openmoji,
)
from geomkit.data.splits import default_splits, split_names
from geomkit.errors import GeomkitError, unknown_name

__all__ = ["ATTRIBUTES", "DATASET", "Attribute", "load_attribute"]

_JOINER = "200D"
_MALE = frozenset(man for man, _, _ in PEOPLE)
_FEMALE = frozenset(woman for _, woman, _ in PEOPLE) | {"1F9D5"}  # a headscarf has no man's emoji
_AS_MAN = {woman: man for man, woman, _ in PEOPLE} | {GENDER_SIGNS[1]: GENDER_SIGNS[0]}
_CHILDREN = frozenset({"1F466", "1F467"})
_FLAGS = frozenset({"1F3C1", "1F38C", "1F6A9", "1F3F3", "1F3F4"})


@dataclass(frozen=True)
class Attribute:
    """A way to classify emoji.

    Attributes:
        class_names: Names of the classes.
        templates: Prompts in the style of the captions, which are names such as "man light skin
            tone".
        label: Function from the code points of an id to its class, or ``None`` if it has none.
        skin_tones: Whether images with skin tones are classified too by default.
        context: Function from the code points of an id to what is left of them without the
            attribute: images of one context differ in the attribute alone. ``None`` if no two
            images do.
    """

    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    label: Callable[[list[str]], int | None]
    skin_tones: bool = False
    context: Callable[[list[str]], str] | None = None


def _skin_tone(codes: list[str]) -> int | None:
    tones = {code for code in codes if code in TONES}
    return TONES.index(tones.pop()) if len(tones) == 1 else None


def _gender(codes: list[str]) -> int | None:
    """Men and women, not children, and no image of both."""
    joined = {code for before, code in pairwise(codes) if before == _JOINER}
    people = set(codes)
    male = bool(people & _MALE) or GENDER_SIGNS[0] in joined
    female = bool(people & _FEMALE) or GENDER_SIGNS[1] in joined
    if people & _CHILDREN or male == female:
        return None
    return int(female)


def _flag(codes: list[str]) -> int | None:
    """Unicode's group of flags: of countries, of regions, and the plain ones."""
    country = len(codes) == 2 and all("1F1E6" <= code <= "1F1FF" for code in codes)
    return int(country or codes[0] in _FLAGS)


_THING = ("{}", "an emoji of {}", "a drawing of {}")
_TONE_NAMES = ("light", "medium-light", "medium", "medium-dark", "dark")

ATTRIBUTES: dict[str, Attribute] = {
    "skin_tone": Attribute(
        tuple(f"{tone} skin tone" for tone in _TONE_NAMES),
        ("{}", "man {}", "woman {}", "person {}", "hand {}", "a person with {}"),
        _skin_tone,
        skin_tones=True,
        context=lambda codes: "-".join(code for code in codes if code not in TONES),
    ),
    "gender": Attribute(
        ("man", "woman"),
        ("{}", "a {}", "an emoji of a {}"),
        _gender,
        context=lambda codes: "-".join(_AS_MAN.get(code, code) for code in codes),
    ),
    "flag": Attribute(("something else", "a flag"), _THING, _flag),
    "keycap": Attribute(("something else", "a keycap"), _THING, lambda codes: int("20E3" in codes)),
}
"""Attributes by name."""


def load_attribute(
    request: Request, *, attribute: str = "", skin_tones: bool | None = None, seed: int = 0
) -> ClassData:
    """OpenMoji's images, classified by one attribute; those without a class are left out.

    Args:
        request: Request for a split of ``train``, ``val`` and ``all``, at any size.
        attribute: One of :data:`ATTRIBUTES`.
        skin_tones: Whether to include skin-tone variants; default: as the attribute needs.
        seed: Random seed of the split.

    Raises:
        GeomkitError: If the attribute is unknown or missing, or needs skin tones.
    """
    spec, splits = request.spec, request.dataset.splits
    if not attribute:
        raise GeomkitError(
            f"data '{spec}': images without classes; choose some: "
            f"openmoji,attribute=NAME ({', '.join(ATTRIBUTES)})"
        )
    if attribute not in ATTRIBUTES:
        raise unknown_name("attribute", attribute, ATTRIBUTES)
    chosen = ATTRIBUTES[attribute]
    tones = chosen.skin_tones if skin_tones is None else skin_tones
    if chosen.skin_tones and not tones:
        raise GeomkitError(f"data '{spec}': {attribute} needs the images with skin tones")
    train, test = default_splits(splits)
    split = request.split or test
    parts = [
        resized_openmoji(replace(request, split=name, seed=seed), skin_tones=tones)
        for name in split_names(split, splits)
    ]
    data = replace(
        parts[0],
        split=split,
        index=np.concatenate([part.index for part in parts]),
        captions=tuple(texts for part in parts for texts in part.captions),
        ids=tuple(code for part in parts for code in part.ids),
    )
    labels = [chosen.label(code.split("-")) for code in data.ids]
    kept = np.array([row for row, label in enumerate(labels) if label is not None], int)
    return ClassData(
        data=data.take(kept),
        labels=np.array([labels[row] for row in kept], np.int64),
        class_names=chosen.class_names,
        templates=chosen.templates,
        dataset=spec,
        names_from="geomkit's, after OpenMoji's names",
        templates_from="geomkit's, after OpenMoji's names",
        train=train,
        test=test,
    )


DATASET = Dataset(
    name="openmoji",
    load=load_attribute,
    help="OpenMoji's own attributes",
    options={"attribute": str, "skin_tones": bool, "seed": int},
    licence=LICENCE,
    attribution=ATTRIBUTION,
    kinds=("classes",),
    form=f"openmoji,attribute={'|'.join(ATTRIBUTES)}",
)
