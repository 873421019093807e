"""Multimodal arithmetic: an image plus a difference of texts, and the image nearest to it.

The query is unit(x̂ + λ(t̂_target − t̂_source)); its answer is the nearest image other than the one it
started from. Among OpenMoji's images the right answer is known exactly: the same emoji with another
skin tone, as a man or a woman, in another colour, and so on
(:data:`geomkit.data.relations.RELATIONS`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from typing import Any, Unpack

import numpy as np

from geomkit.data import PairData
from geomkit.data.emoji_codes import neutral
from geomkit.data.pairs import LeftOut
from geomkit.data.queries import arithmetic_data, arithmetic_spec
from geomkit.data.relations import LEAST, MEAN
from geomkit.errors import GeomkitError, unknown_name
from geomkit.metrics.number import mean_with_error
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.tasks.features import Runner, Running
from geomkit.tasks.queries import Answers, Task, answer, tasks_of
from geomkit.tasks.result import ArithmeticResult, Example, Part, in_columns, model_names

__all__ = ["DIFFERENCES", "ELSEWHERE", "SPLITS", "arithmetic"]

DIFFERENCES = ("words", "names")
"""Texts that are subtracted: the two words of the attribute, as in SIMAT, or the whole names of the
two images."""
SPLITS = ("val", "all")
ELSEWHERE = "another emoji"
EXAMPLES = 6
"""Largest number of successes, and of failures; each is of a different emoji."""


def arithmetic(
    checkpoint: Checkpoint,
    spec: str = "openmoji",
    *,
    split: str = "val",
    strengths: Sequence[float] = (1.0,),
    differences: Sequence[str] = ("words",),
    **running: Unpack[Running],
) -> list[ArithmeticResult]:
    """Return the accuracy of arithmetic with OpenMoji's images: of skin tones, genders and so on.

    A relation with fewer than 20 queries, or about one emoji alone, is left out; ``meta`` says so.

    Args:
        checkpoint: The model; it is moved to the device.
        spec: DATA spec, ``openmoji`` with options; see
            :func:`~geomkit.data.queries.arithmetic_spec`.
        split: ``val`` for queries from training images to held-out ones, ``all`` for queries
            between all images. Every query searches all images except its own.
        strengths: Values of λ.
        differences: Names from :data:`DIFFERENCES`.
        running: Device, precision and batch size, see :class:`~geomkit.tasks.features.Running`;
            its function of progress is called if the images are not cached yet.

    Returns:
        One result per difference and strength.

    Raises:
        GeomkitError: For an unknown split or difference, data without queries, or a model that
            gives embeddings that are not finite.
    """
    from geomkit.extraction import embed

    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    for name in differences:
        if name not in DIFFERENCES:
            raise unknown_name("difference", name, DIFFERENCES)
    on = Runner(checkpoint, **running)
    spec = arithmetic_spec(spec)
    data, held_out = arithmetic_data(spec, checkpoint.preprocess, progress=on.progress)
    masks = {"sources": ~held_out, "targets": held_out} if split == "val" else {}
    emoji = _numbers([neutral(code) for code in data.ids])
    tasks, left_out = [], list[LeftOut]()
    for task in tasks_of(data.ids, **masks):
        if len(task) >= LEAST and len(set(emoji[task.target])) > 1:
            tasks.append(task)
        else:
            what = f"queries of {task.attribute} (expected {LEAST} about two emoji or more)"
            left_out += LeftOut.of(what, [data.ids[row] for row in task.target])
    if not tasks:
        raise GeomkitError(f"data '{spec}' ({split}): no relation with {LEAST} queries or more")
    found = embed(checkpoint, data, **on.options)
    image, names = np.asarray(found.image), np.asarray(found.text)[found.first_texts()]
    words = [on.text_rows(task.values) for task in tasks]
    places = np.arange(len(data))
    results = []
    for difference, strength in product(differences, strengths):
        answers, norms = [], []
        for task, rows in zip(tasks, words, strict=True):
            texts, of = (rows, task.value) if difference == "words" else (names, places)
            delta = texts[of[task.target]] - texts[of[task.source]]
            answers.append(answer(image, task, delta, strength=strength))
            norms.append(float(np.linalg.norm(delta, axis=1).mean()))
        results.append(
            ArithmeticResult(
                dataset=spec,
                split=split,
                strength=strength,
                difference=difference,
                gallery=len(data),
                **model_names(checkpoint),
                meta={
                    "data_source": data.source,
                    "licence": data.licence,
                    "attribution": data.attribution,
                    "difference_norm": float(np.mean(norms)),
                    "trained_on": (checkpoint.meta.get("config") or {}).get("data"),
                    "device": on.device,
                    "precision": on.precision,
                    "notes": checkpoint.notes,
                    **({"left_out": [asdict(some) for some in left_out]} if left_out else {}),
                },
                **_scores(tasks, answers, data, emoji),
            )
        )
    return results


def _scores(
    tasks: list[Task], answers: list[Answers], data: PairData, emoji_of: np.ndarray
) -> dict[str, Any]:
    """Return the scores of a result; their errors take each emoji as one group."""
    per_value: dict[str, Part] = {}
    taken_for: dict[str, dict[str, dict[str, float]]] = {}
    credit = [a.credit for a in answers]
    groups = [emoji_of[task.target] for task in tasks]
    parts = {
        "acc1": _part(np.concatenate(credit), np.concatenate(groups)),
        MEAN: _mean_part(credit, groups),
    }
    for task, a in zip(tasks, answers, strict=True):
        parts[f"acc1_{task.attribute}"] = _part(a.credit, emoji_of[task.target])
        asked = task.value[task.target]
        names = [*task.values, ELSEWHERE]
        taken_for[task.attribute] = shares = {}
        for v in np.unique(asked):
            mine = asked == v
            found = a.found[mine].mean(axis=0).tolist()
            shares[task.values[v]] = dict(zip(names, found, strict=True))
            per_value[f"{task.attribute}: {task.values[v]}"] = _part(
                a.credit[mine], emoji_of[task.target[mine]]
            )
    return {
        **in_columns(parts),
        "chance": dict.fromkeys(parts, 1.0 / (len(data) - 1)),
        "per_value": per_value,
        "taken_for": taken_for,
        "examples": _examples(tasks, answers, data, emoji_of),
    }


def _numbers(names: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(names), return_inverse=True)[1]


def _part(credit: np.ndarray, groups: np.ndarray) -> Part:
    value, error = mean_with_error(credit, np.unique(groups, return_inverse=True)[1])
    return Part(value, error, len(credit))


def _mean_part(credit: Sequence[np.ndarray], groups: Sequence[np.ndarray]) -> Part:
    """Return the mean of the relations' means; an emoji is one group in all of them."""
    sums = np.zeros(max(int(rows.max()) for rows in groups) + 1)
    for values, rows in zip(credit, groups, strict=True):
        weight = (values - values.mean()) / (len(values) * len(credit))
        sums += np.bincount(rows, weights=weight, minlength=len(sums))
    count = len(np.unique(np.concatenate(groups)))
    error = math.sqrt(float((sums**2).sum()) * count / (count - 1))
    value = float(np.mean([values.mean() for values in credit]))
    return Part(value, error, sum(map(len, credit)))


def _examples(
    tasks: list[Task], answers: list[Answers], data: PairData, emoji_of: np.ndarray
) -> tuple[Example, ...]:
    """Return the successes with the largest margin, then the failures with the smallest."""
    margins = np.concatenate([a.margin for a in answers])
    where = [(k, q) for k, task in enumerate(tasks) for q in range(len(task))]
    order = np.argsort(-margins, kind="stable")
    right = [int(i) for i in order if margins[i] > 0]
    wrong = [int(i) for i in order[::-1] if margins[i] < 0]
    chosen = []
    for half in (right, wrong):
        seen: set[int] = set()
        for i in half:
            k, q = where[i]
            task, emoji = tasks[k], int(emoji_of[tasks[k].target[q]])
            if emoji in seen or len(seen) == EXAMPLES:
                continue
            seen.add(emoji)
            source, target = task.source[q], task.target[q]
            words = (task.values[task.value[source]], task.values[task.value[target]])
            found = int(answers[k].retrieved[q])
            ids = (data.ids[source], data.ids[target], data.ids[found])
            chosen.append(Example(*ids, words, float(margins[i])))
    return tuple(chosen)
