"""OpenMoji's own attributes as classes, read off the code points of each picture's id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from geomkit.data.openmoji import GENDER_SIGNS, PEOPLE, TONES

__all__ = ["ATTRIBUTES", "Attribute"]

_JOINER = "200D"
_MALE = frozenset(man for man, _, _ in PEOPLE)
_FEMALE = frozenset(woman for _, woman, _ in PEOPLE) | {"1F9D5"}  # a headscarf has no man's emoji
_AS_MAN = {woman: man for man, woman, _ in PEOPLE} | {GENDER_SIGNS[1]: GENDER_SIGNS[0]}
_CHILDREN = frozenset({"1F466", "1F467"})
_FLAGS = frozenset({"1F3C1", "1F38C", "1F6A9", "1F3F3", "1F3F4"})


@dataclass(frozen=True)
class Attribute:
    """A way to sort emoji.

    Attributes:
        class_names: what the classes are called.
        templates: prompts in the manner of the captions, which are names such as "man light skin
            tone".
        label: from the code points of an id to its class, or ``None`` if it has none.
        skin_tones: whether images with skin tones are classified too unless asked otherwise.
        context: from the code points of an id to what is left of them without the attribute;
            images of one context differ in the attribute alone. ``None`` where no two images do.
    """

    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    label: Callable[[list[str]], int | None]
    skin_tones: bool = False
    context: Callable[[list[str]], str] | None = None


def _skin_tone(codes: list[str]) -> int | None:
    tones = {code for code in codes if code in TONES}
    return TONES.index(tones.pop()) if len(tones) == 1 else None


def _without_tone(codes: list[str]) -> str:
    return "-".join(code for code in codes if code not in TONES)


def _gender(codes: list[str]) -> int | None:
    """Men and women, not children, and no picture of both."""
    joined = {code for before, code in pairwise(codes) if before == _JOINER}
    people = set(codes)
    male = bool(people & _MALE) or GENDER_SIGNS[0] in joined
    female = bool(people & _FEMALE) or GENDER_SIGNS[1] in joined
    if people & _CHILDREN or male == female:
        return None
    return int(female)


def _as_man(codes: list[str]) -> str:
    return "-".join(_AS_MAN.get(code, code) for code in codes)


def _flag(codes: list[str]) -> int | None:
    """Unicode's group of flags: of countries, of regions, and the plain ones."""
    country = len(codes) == 2 and all("1F1E6" <= code <= "1F1FF" for code in codes)
    return int(country or codes[0] in _FLAGS)


def _keycap(codes: list[str]) -> int | None:
    return int("20E3" in codes)


_TONE_NAMES = ("light", "medium-light", "medium", "medium-dark", "dark")

ATTRIBUTES: dict[str, Attribute] = {
    "skin_tone": Attribute(
        tuple(f"{tone} skin tone" for tone in _TONE_NAMES),
        ("{}", "man {}", "woman {}", "person {}", "hand {}", "a person with {}"),
        _skin_tone,
        skin_tones=True,
        context=_without_tone,
    ),
    "gender": Attribute(
        ("man", "woman"), ("{}", "a {}", "an emoji of a {}"), _gender, context=_as_man
    ),
    "flag": Attribute(
        ("something else", "a flag"), ("{}", "an emoji of {}", "a drawing of {}"), _flag
    ),
    "keycap": Attribute(
        ("something else", "a keycap"), ("{}", "an emoji of {}", "a drawing of {}"), _keycap
    ),
}
"""Attributes by name."""
