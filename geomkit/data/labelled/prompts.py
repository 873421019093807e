"""Names of classes and prompts for them: OpenAI's published ones, or from a file.

The prompts of each data set are in its module. They are those of OpenAI's CLIP (its repository's
``data/prompts.md`` and notebooks), which CLIP_benchmark uses too; ImageNet's names and prompts
come from open_clip.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geomkit._core.files import refusing
from geomkit._core.schema import once
from geomkit.errors import GeomkitError

__all__ = [
    "fill",
    "imagenet_names",
    "imagenet_templates",
    "read_classnames",
    "read_templates",
    "with_articles",
]


def with_articles(*forms: str) -> tuple[str, ...]:
    """Prompts with "a", then with "the", in place of ``{a}``.

    >>> with_articles("{a} toy {}.")
    ('a toy {}.', 'the toy {}.')
    """
    return tuple(form.replace("{a}", article) for article in ("a", "the") for form in forms)


def imagenet_names() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes, in the order of their WordNet ids."""
    from open_clip import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


def imagenet_templates() -> tuple[str, ...]:
    """OpenAI's 80 prompts for ImageNet."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def fill(template: str, name: str) -> str:
    """A prompt with a class's name in place of ``{c}`` or ``{}``; other braces are kept.

    >>> fill("a photo of a {c}.", "cat"), fill("a {} in a video game.", "dog")
    ('a photo of a cat.', 'a dog in a video game.')
    """
    return template.replace("{c}" if "{c}" in template else "{}", name)


def read_classnames(path: Path, expected: Sequence[str]) -> tuple[str, ...]:
    """Names of classes from a file: one per line, or JSON.

    The JSON is a list of names, a dictionary from the data set's own name or number of each class
    to its name, or a dictionary of such lists of which one fits by its length.

    Args:
        path: File.
        expected: The data set's own names; those in the file follow their number and order.

    Raises:
        GeomkitError: If it cannot be read, holds another number of names, or a name twice.
    """
    names = _lines_or_json(path, "names", expected)
    if len(names) != len(expected):
        raise GeomkitError(
            f"{path}: expected {len(expected)} names, in the order of '{expected[0]}' to "
            f"'{expected[-1]}', got {len(names)}"
        )
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise GeomkitError(f"{path}: '{name}' appears twice; give each class a name of its own")
    return names


def read_templates(path: Path) -> tuple[str, ...]:
    """Prompts from a file: one per line, or JSON, each with ``{}`` or ``{c}``.

    The JSON is a list of prompts, or a dictionary with one such list.

    Raises:
        GeomkitError: If it cannot be read, is empty, or a prompt has no place for a name.
    """
    templates = _lines_or_json(path, "prompts", ())
    for template in templates:
        if "{}" not in template and "{c}" not in template:
            raise GeomkitError(f"{path}: '{template}' has no {{}} or {{c}} for the class's name")
    return templates


def _from_dictionary(
    path: Path, found: dict[str, Any], what: str, expected: Sequence[str]
) -> list[Any]:
    """The list that a dictionary of names or prompts stands for.

    Raises:
        GeomkitError: If it is not clear which; the message names the keys.
    """
    numbers = [str(i) for i in range(len(expected))]
    for keys in (list(expected), [name.replace(" ", "_") for name in expected], numbers):
        if keys and set(found) == set(keys):
            return [found[key] for key in keys]
    lists = {key: value for key, value in found.items() if isinstance(value, list)}
    fits = {k: v for k, v in lists.items() if not expected or len(v) == len(expected)}
    if len(fits) == 1 and len(lists) == len(found):
        return next(iter(fits.values()))
    some = ", ".join(list(found)[:4])
    wanted = f"one list of {what}" + (", or a name for each class" if expected else "")
    raise GeomkitError(f"{path}: a dictionary with {len(found)} keys ({some}); expected {wanted}")


def _lines_or_json(path: Path, what: str, expected: Sequence[str]) -> tuple[str, ...]:
    path = path.expanduser()
    if not path.is_file():
        raise GeomkitError(f"{path}: no such file")
    with (
        refusing(OSError, says=f"{path}: cannot be read"),
        refusing(UnicodeDecodeError, says=f"{path}: not text in UTF-8"),
    ):
        text = path.read_text("utf-8-sig")
    if path.suffix == ".json" or text.lstrip().startswith(('["', '{"')):
        with refusing(ValueError, RecursionError, says=f"{path}: not JSON"):
            found = json.loads(text, object_pairs_hook=once)
        if isinstance(found, dict):
            found = _from_dictionary(path, found, what, expected)
        if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
            raise GeomkitError(f"{path}: expected a JSON list of {what}")
        words = [word.strip() for word in found]
    else:
        words = [line.strip() for line in text.splitlines() if line.strip()]
    with refusing(
        UnicodeEncodeError, says=f"{path}: not text in UTF-8"
    ):  # half of a surrogate pair
        "".join(words).encode()
    if not words or not all(words):
        raise GeomkitError(f"{path}: expected {what}, one per line or a JSON list, found none")
    return tuple(words)
