"""Emoji by their code points: skin tones, genders, variants of one emoji, Unicode's groups.

An emoji's code is its code points in hexadecimal, joined by "-", as OpenMoji names its files.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import NamedTuple

__all__ = ["GENDER_SIGNS", "JOINER", "PEOPLE", "SELECTOR", "TONES", "Group", "all_groups",
           "group_of", "neutral", "without"]  # fmt: skip

TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")
"""Codes of the skin tones, light to dark."""
PEOPLE = (
    ("1F468", "1F469", "1F9D1"),
    ("1F474", "1F475", "1F9D3"),
    ("1FAC3", "1F930", "1FAC4"),
    ("1F57A", "1F483", "dancer"),
)
"""Codes of a man, the same as a woman, and the person without a gender: adults, old people,
pregnant people, dancers (who have no emoji without a gender)."""
GENDER_SIGNS = ("2642", "2640")
"""Codes of the signs for male and female: a gender only where they are joined to a person."""
SELECTOR = "FE0F"
"""Code of the presentation selector, which changes no picture."""
JOINER = "200D"
"""Code of the joiner between emoji that make one."""
_NEUTRAL = {code: person for *genders, person in PEOPLE for code in genders}


class Group(NamedTuple):
    """Where Unicode lists an emoji, in the words of a caption.

    Attributes:
        name: Group, such as "animals and nature".
        subgroup: Subgroup, such as "mammal".
    """

    name: str
    subgroup: str


def without(code: str, *removed: str) -> str:
    """An emoji's code without some of its code points.

    >>> without("1F44B-1F3FF", *TONES)
    '1F44B'
    """
    return "-".join(c for c in code.split("-") if c not in removed)


def neutral(code: str) -> str:
    """An emoji's code without skin tones, genders and presentation selectors.

    Codes that differ in nothing else are variants of one emoji.

    >>> neutral("1F468-1F3FF-200D-1F373"), neutral("1F3C3-200D-2640-FE0F")
    ('1F9D1-200D-1F373', '1F3C3')
    """
    plain = without(code, *TONES, SELECTOR)
    for sign in GENDER_SIGNS:
        plain = plain.replace(f"-{JOINER}-{sign}", "")
    return "-".join(_NEUTRAL.get(c, c) for c in plain.split("-"))


def group_of(code: str) -> Group | None:
    """Unicode's group and subgroup of an emoji, ``None`` if it lists none.

    Skin tones and presentation selectors do not matter.

    >>> group_of("1F44B-1F3FF")
    Group(name='people and body', subgroup='open hand')
    """
    return _listed()[1].get(without(code, *TONES, SELECTOR))


def all_groups() -> tuple[Group, ...]:
    """Every subgroup with its group, in Unicode's order.

    >>> len(all_groups()), len({group.name for group in all_groups()})
    (98, 9)
    """
    return _listed()[0]


@cache
def _listed() -> tuple[tuple[Group, ...], dict[str, Group]]:
    text = resources.files("geomkit.data").joinpath("emoji_groups.txt").read_text("utf-8")
    found, by_code = list[Group](), dict[str, Group]()
    for line in text.splitlines():
        if not line.startswith("#"):
            group, _, subgroup, codes = line.split("; ")
            found.append(Group(group.lower().replace("&", "and"), subgroup))
            by_code |= dict.fromkeys(codes.split(), found[-1])
    return tuple(found), by_code
