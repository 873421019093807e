"""OpenMoji's own attributes as classes, read from the code points of each image's id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from geomkit.data.declarations import Dataset, Request
from geomkit.data.emoji_codes import all_groups, group_of, neutral
from geomkit.data.labelled.classes import ClassData
from geomkit.data.openmoji import ATTRIBUTION, LICENCE, resized_openmoji
from geomkit.data.pairs import LeftOut
from geomkit.data.relations import RELATIONS, gender, skin_tone
from geomkit.data.splits import default_splits, split_names
from geomkit.errors import GeomkitError, unknown_name

__all__ = ["ATTRIBUTES", "DATASET", "Attribute", "load_attribute"]

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
        lacking: What images without a class are, if every image should have one; empty where it is
            an attribute that some do not have.
    """

    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    label: Callable[[list[str]], int | None]
    skin_tones: bool = False
    lacking: str = ""


def _flag(codes: list[str]) -> int | None:
    """Unicode's group of flags: of countries, of regions, and the plain ones."""
    country = len(codes) == 2 and all("1F1E6" <= code <= "1F1FF" for code in codes)
    return int(country or codes[0] in _FLAGS)


def _in_groups(field: str) -> Attribute:
    """Unicode's groups or subgroups, in words that :func:`load_openmoji` puts into captions."""
    names = tuple(dict.fromkeys(getattr(group, field) for group in all_groups()))

    def label(codes: list[str]) -> int | None:
        found = group_of("-".join(codes))
        return None if found is None else names.index(getattr(found, field))

    return Attribute(names, _GROUPED, label, lacking="emoji in no group of Unicode 17.0")


_GROUPED = ("{}", "something, {}", "{} emoji")
_THING = ("{}", "an emoji of {}", "a drawing of {}")

ATTRIBUTES: dict[str, Attribute] = {
    "skin_tone": Attribute(
        RELATIONS["skin_tone"].values,
        ("{}", "man {}", "woman {}", "person {}", "hand {}", "a person with {}"),
        skin_tone,
        skin_tones=True,
    ),
    "gender": Attribute(RELATIONS["gender"].values, ("{}", "a {}", "an emoji of a {}"), gender),
    "flag": Attribute(("something else", "a flag"), _THING, _flag),
    "keycap": Attribute(("something else", "a keycap"), _THING, lambda codes: int("20E3" in codes)),
    "group": _in_groups("name"),
    "subgroup": _in_groups("subgroup"),
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
    emoji = np.unique([neutral(data.ids[row]) for row in kept], return_inverse=True)[1]
    without = [code for code, label in zip(data.ids, labels, strict=True) if label is None]
    if chosen.lacking and without:
        left_out = LeftOut.of(chosen.lacking, without)
        data = replace(data, given=len(data), left_out=left_out)
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
        groups=emoji,
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
