"""Relations between emoji: pairs that differ in one attribute alone, such as the skin tone.

Two emoji of one *context* with different *values* answer each other: image plus the difference of
the values' words is the image of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from geomkit.data.emoji_codes import GENDER_SIGNS, JOINER, PEOPLE, SELECTOR, TONES
from geomkit.data.pairs import seeded_hash
from geomkit.data.splits import VAL_SHARE

__all__ = ["LEAST", "MEAN", "RELATIONS", "Relation", "gender", "held_out_relations", "skin_tone"]

LEAST = 20
"""Queries of multimodal arithmetic that a relation must have, about two emoji or more."""
MEAN = "mean_per_relation_acc1"
"""Name of the score of arithmetic in which every relation counts alike."""

_MALE = frozenset(man for man, _, _ in PEOPLE)
_FEMALE = frozenset(woman for _, woman, _ in PEOPLE) | {"1F9D5"}  # a headscarf has no man's emoji
_AS_MAN = {woman: man for man, woman, _ in PEOPLE} | {GENDER_SIGNS[1]: GENDER_SIGNS[0]}
_CHILDREN = frozenset({"1F466", "1F467"})
_FACING = [JOINER, "27A1"]


@dataclass(frozen=True)
class Relation:
    """An attribute in which emoji of one context differ.

    Attributes:
        values: Words of the values, as captions have them.
        place: Function from the code points of an emoji, without presentation selectors, to its
            context and the index of its value; ``None`` for an emoji without the attribute.
    """

    values: tuple[str, ...]
    place: Callable[[list[str]], tuple[str, int] | None]

    def places(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return context and value of each emoji; −1 where no other value has its context.

        Args:
            ids: Codes of ``n`` emoji.

        >>> context, value = RELATIONS["skin_tone"].places(["1F44B-1F3FB", "1F44B-1F3FC", "1F44B"])
        >>> context.tolist(), value.tolist()
        ([0, 0, -1], [0, 1, -1])
        """
        members: dict[str, dict[int, int]] = {}
        for row, code in enumerate(ids):
            found = self.place([c for c in code.split("-") if c != SELECTOR])
            if found is not None:
                members.setdefault(found[0], {})[row] = found[1]
        context, value = np.full((2, len(ids)), -1)
        several = (rows for rows in members.values() if len(set(rows.values())) > 1)
        for number, rows in enumerate(several):
            for row, index in rows.items():
                context[row], value[row] = number, index
        return context, value


def skin_tone(codes: list[str]) -> int | None:
    """The one skin tone among code points, light to dark."""
    tones = {code for code in codes if code in TONES}
    return TONES.index(tones.pop()) if len(tones) == 1 else None


def gender(codes: list[str]) -> int | None:
    """0 for men and 1 for women; not children, and no image of both."""
    joined = {code for before, code in pairwise(codes) if before == JOINER}
    people = set(codes)
    male = bool(people & _MALE) or GENDER_SIGNS[0] in joined
    female = bool(people & _FEMALE) or GENDER_SIGNS[1] in joined
    if people & _CHILDREN or male == female:
        return None
    return int(female)


def _with(
    value: Callable[[list[str]], int | None], context: Callable[[list[str]], Sequence[str]]
) -> Callable[[list[str]], tuple[str, int] | None]:
    def place(codes: list[str]) -> tuple[str, int] | None:
        found = value(codes)
        return None if found is None else ("-".join(context(codes)), found)

    return place


def _exchange(families: Mapping[str, Mapping[str, str]], *, joined: bool = False) -> Relation:
    """Emoji that are alike but for one code point.

    Args:
        families: For each family of code points that stand for each other, code by value.
        joined: Whether the code point counts only where it is joined to a person.
    """
    values = tuple(dict.fromkeys(value for family in families.values() for value in family))
    known = {
        code: (name, values.index(value))
        for name, family in families.items()
        for value, code in family.items()
    }

    def place(codes: list[str]) -> tuple[str, int] | None:
        at = [
            k for k, code in enumerate(codes)
            if code in known and (not joined or (k > 0 and codes[k - 1] == JOINER))
        ]  # fmt: skip
        if len(at) != 1:
            return None
        name, value = known[codes[at[0]]]
        return "-".join([*codes[: at[0]], name, *codes[at[0] + 1 :]]), value

    return Relation(values, place)


def _row(first: str, values: Sequence[str]) -> dict[str, str]:
    """Values of code points that follow each other."""
    return {value: f"{int(first, 16) + k:X}" for k, value in enumerate(values)}


_AGES = ("child", "person", "older person")
_HOURS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
          "twelve")  # fmt: skip

SMALL = 300
"""Largest number of emoji of a small relation."""
RELATIONS: dict[str, Relation] = {
    "skin_tone": Relation(
        tuple(f"{tone} skin tone" for tone in ("light", "medium-light", "medium", "medium-dark",
                                               "dark")),
        _with(skin_tone, lambda codes: [code for code in codes if code not in TONES]),
    ),
    "gender": Relation(
        ("man", "woman"), _with(gender, lambda codes: [_AS_MAN.get(code, code) for code in codes])
    ),
    "hair": _exchange(
        {"hair": {"red hair": "1F9B0", "curly hair": "1F9B1", "white hair": "1F9B3",
                  "bald": "1F9B2"}},
        joined=True,
    ),
    "age": _exchange(
        {
            "man": dict(zip(_AGES, ("1F466", "1F468", "1F474"), strict=True)),
            "woman": dict(zip(_AGES, ("1F467", "1F469", "1F475"), strict=True)),
            "neither": dict(zip(_AGES, ("1F9D2", "1F9D1", "1F9D3"), strict=True)),
        }
    ),
    "role": _exchange(
        {
            "role": {
                "health worker": "2695", "student": "1F393", "teacher": "1F3EB", "judge": "2696",
                "farmer": "1F33E", "cook": "1F373", "mechanic": "1F527",
                "factory worker": "1F3ED", "office worker": "1F4BC", "scientist": "1F52C",
                "technologist": "1F4BB", "singer": "1F3A4", "artist": "1F3A8", "pilot": "2708",
                "astronaut": "1F680", "firefighter": "1F692",
            }
        },
        joined=True,
    ),
    "facing": Relation(
        ("facing left", "facing right"),  # those that are not said to face right face left
        _with(
            lambda codes: int(codes[-2:] == _FACING),
            lambda codes: codes[:-2] if codes[-2:] == _FACING else codes,
        ),
    ),
    "direction": _exchange(
        {
            "index": {"up": "1F446", "down": "1F447", "left": "1F448", "right": "1F449"},
            "thumbs": {"up": "1F44D", "down": "1F44E"},
            "fist": {"left": "1F91B", "right": "1F91C"},
            "hand": {"left": "1FAF2", "right": "1FAF1"},
            "palm": {"up": "1FAF4", "down": "1FAF3"},
            "pushing": {"left": "1FAF7", "right": "1FAF8"},
            "arrow": {"up": "2B06", "down": "2B07", "left": "2B05", "right": "27A1"},
            "curving arrow": {"up": "2934", "down": "2935"},
            "triangle": {"up": "1F53A", "down": "1F53B"},
            "fast button": {"up": "23EB", "down": "23EC"},
            "button": {"up": "1F53C", "down": "1F53D"},
            "magnifying glass": {"left": "1F50D", "right": "1F50E"},
        }
    ),
    "colour": _exchange(
        {
            "heart": {"red": "2764", "orange": "1F9E1", "yellow": "1F49B", "green": "1F49A",
                      "blue": "1F499", "purple": "1F49C", "brown": "1F90E", "black": "1F5A4",
                      "white": "1F90D"},
            "circle": {"red": "1F534", "orange": "1F7E0", "yellow": "1F7E1", "green": "1F7E2",
                       "blue": "1F535", "purple": "1F7E3", "brown": "1F7E4", "black": "26AB",
                       "white": "26AA"},
            "square": {"red": "1F7E5", "orange": "1F7E7", "yellow": "1F7E8", "green": "1F7E9",
                       "blue": "1F7E6", "purple": "1F7EA", "brown": "1F7EB", "black": "2B1B",
                       "white": "2B1C"},
            "medium square": {"black": "25FC", "white": "25FB"},
            "medium-small square": {"black": "25FE", "white": "25FD"},
            "small square": {"black": "25AA", "white": "25AB"},
            "square button": {"black": "1F532", "white": "1F533"},
            "flag": {"black": "1F3F4", "white": "1F3F3"},
            "book": {"green": "1F4D7", "blue": "1F4D8", "orange": "1F4D9"},
            "apple": {"red": "1F34E", "green": "1F34F"},
            "large diamond": {"orange": "1F536", "blue": "1F537"},
            "small diamond": {"orange": "1F538", "blue": "1F539"},
            "question mark": {"red": "2753", "white": "2754"},
            "exclamation mark": {"red": "2757", "white": "2755"},
        }
    ),
    "hour": _exchange({"o'clock": _row("1F550", _HOURS), "thirty": _row("1F55C", _HOURS)}),
}  # fmt: skip
"""Relations by name."""


def held_out_relations(ids: Sequence[str], seed: int) -> np.ndarray:
    """Whether each emoji is held out: of each relation a fifth, of a small one a third.

    In every context of a relation, and for every value, at least one emoji is not held out: what a
    held-out emoji differs from is known, and so are the words for it.

    Args:
        ids: Codes of ``n`` emoji.
        seed: Random seed of the choice.
    """
    order = np.argsort([seeded_hash(code, seed, "relation") for code in ids])
    held = np.zeros(len(ids), bool)
    alike = []
    for relation in RELATIONS.values():
        context, value = relation.places(ids)
        members = order[context[order] >= 0]
        share = VAL_SHARE if len(members) > SMALL else 1.0 / 3.0
        held[members[: round(share * len(members))]] = True
        for column in (context, value):
            alike += [order[column[order] == k] for k in range(column.max(initial=-1) + 1)]
    for rows in alike:
        if len(rows) and held[rows].all():
            held[rows[-1]] = False
    return held
