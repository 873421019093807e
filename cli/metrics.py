"""``geomkit metrics``."""

from __future__ import annotations

import json

from geomkit.errors import unknown_name

from . import console

__all__ = ["metrics"]


def metrics(name: str | None = None, *, as_json: bool = False) -> None:
    """List the metrics, one per line, with what their extremes mean and what they cost.

    Args:
        name: Metric to describe in full.
        as_json (--json): Print one JSON object.

    Examples:
        $ geomkit metrics
        $ geomkit metrics --json
    """
    import inspect

    from geomkit.metrics import METRICS

    if name is not None:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
        metric = METRICS[name]
        console.out(f"{name}: {metric.interpretation()}; cost {metric.cost}\n")
        console.out(inspect.cleandoc(metric.number.__doc__ or ""))
        if metric.pitfalls:
            console.out(f"\nPitfalls: {metric.pitfalls}")
        return
    if as_json:
        listed = {
            m.name: {
                "group": m.group, "summary": m.summary, "ends": m.interpretation(), "cost": m.cost
            }
            for m in METRICS.values()
        }  # fmt: skip
        console.out(json.dumps({"schema_version": 1, "metrics": listed}, ensure_ascii=False))
        return
    width = max(map(len, METRICS))
    ends = max(len(m.interpretation()) for m in METRICS.values())
    group = ""
    for m in METRICS.values():
        if m.group != group:
            group = m.group
            console.out(f"\n{group}")
        console.out(f"  {m.name:{width}}  {m.cost:5}  {m.interpretation():{ends}}  {m.summary}")
