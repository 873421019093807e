"""``geomkit metrics``."""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING

from geomkit._core.table import Table
from geomkit.errors import unknown_name

from . import console

if TYPE_CHECKING:
    from geomkit.metrics import Metric

__all__ = ["metrics"]


def metrics(name: str | None = None, *, as_json: bool = False) -> None:
    """List the metrics by group, with what their extremes mean and what they cost; or explain one.

    Args:
        name: Metric to explain, or group to list.
        as_json (--json): Print one JSON object.

    Examples:
        $ geomkit metrics
        $ geomkit metrics centroid_distance
    """
    from geomkit.metrics import METRICS

    groups = list(dict.fromkeys(m.group for m in METRICS.values()))
    if name is not None and name not in (*groups, *METRICS):
        raise unknown_name("metric", name, [*groups, *METRICS], see="geomkit metrics")
    chosen = [m for m in METRICS.values() if name in (None, m.group, m.name)]
    if as_json:
        listed = {
            m.name: {
                "group": m.group, "summary": m.summary, "ends": m.interpretation(), "cost": m.cost
            }
            for m in chosen
        }  # fmt: skip
        console.out(json.dumps({"schema_version": 1, "metrics": listed}, ensure_ascii=False))
    elif chosen[0].name == name:
        _explain(chosen[0])
    else:
        sections = []
        for group in groups:
            rows = [
                [f"  {m.name}", m.cost, m.interpretation(), m.summary]
                for m in chosen
                if m.group == group
            ]
            sections += [[[group, "", "", ""], *rows]] if rows else []
        headings = ["metric", "cost", "from … to", "meaning"]
        console.table(Table(headings, sections, True, optional=headings[1:3]))


def _explain(metric: Metric) -> None:
    console.out(metric.name)
    for paragraph in inspect.cleandoc(metric.number.__doc__ or "").split("\n\n"):
        console.out("")
        formula = paragraph.removeprefix(".. math::")
        if formula == paragraph:
            console.words(_plain(paragraph))
        else:
            console.out("\n".join(f"    {line.strip()}" for line in formula.strip().splitlines()))
    facts = [f"From … to: {metric.interpretation()}. Cost: {metric.cost}. Group: {metric.group}."]
    for text in (*facts, *([f"Pitfalls: {metric.pitfalls}"] if metric.pitfalls else [])):
        console.out("")
        console.words(text)


def _plain(text: str) -> str:
    r"""Text of a docstring in one line, without markup; formulas stay LaTeX.

    >>> _plain(":math:`\\bar x` of ``x``, see :func:`~geomkit.metrics.gap`\nand others")
    '\\bar x of x, see gap and others'
    """
    text = re.sub(r":math:`([^`]+)`", r"\1", text)
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", text)
    return " ".join(text.replace("``", "").split())
