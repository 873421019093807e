"""OpenMoji's own attributes as classes, read off the code points of each picture's id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["ATTRIBUTES", "Attribute"]

_JOINER = "200D"
_TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")
_MALE = frozenset({"1F468", "1F474", "1F57A", "1FAC3"})
_FEMALE = frozenset({"1F469", "1F475", "1F483", "1F930", "1F9D5"})
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
        skin_tones: whether pictures with skin tones are sorted too unless asked otherwise.
    """

    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    label: Callable[[list[str]], int | None]
    skin_tones: bool = False


def _skin_tone(codes: list[str]) -> int | None:
    tones = {code for code in codes if code in _TONES}
    return _TONES.index(tones.pop()) if len(tones) == 1 else None


def _gender(codes: list[str]) -> int | None:
    """Men and women, not children, and no picture of both."""
    # The signs of Mars and Venus tell a person's gender only when joined to one.
    joined = {code for before, code in pairwise(codes) if before == _JOINER}
    people = set(codes)
    male = bool(people & _MALE) or "2642" in joined
    female = bool(people & _FEMALE) or "2640" in joined
    if people & _CHILDREN or male == female:
        return None
    return int(female)


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
    ),
    "gender": Attribute(("man", "woman"), ("{}", "a {}", "an emoji of a {}"), _gender),
    "flag": Attribute(
        ("something else", "a flag"), ("{}", "an emoji of {}", "a drawing of {}"), _flag
    ),
    "keycap": Attribute(
        ("something else", "a keycap"), ("{}", "an emoji of {}", "a drawing of {}"), _keycap
    ),
}
"""Attributes by name."""
