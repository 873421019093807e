"""``geomkit metrics``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from geomkit.metrics import Metric

__all__ = ["metrics"]


def metrics(
    name: Annotated[str | None, typer.Argument(help="One metric: all that is known of it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the metrics: a line each, with range and cost."""
    from geomkit.errors import unknown_name
    from geomkit.metrics import METRICS

    if name is not None:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
        import inspect

        typer.echo(f"{name}: {_ends(METRICS[name])}; cost {METRICS[name].cost}\n")
        typer.echo(inspect.cleandoc(METRICS[name].number.__doc__ or ""))
        return
    if as_json:
        listed = {
            m.name: {"group": m.group, "summary": m.summary, "ends": _ends(m), "cost": m.cost}
            for m in METRICS.values()
        }
        typer.echo(json.dumps({"schema_version": 1, "metrics": listed}, ensure_ascii=False))
        return
    width = max(map(len, METRICS))
    ends = max(len(_ends(m)) for m in METRICS.values())
    group = ""
    for m in METRICS.values():
        if m.group != group:
            group = m.group
            typer.echo(f"\n{group}")
        typer.echo(f"  {m.name:{width}}  {m.cost:5}  {_ends(m):{ends}}  {m.summary}")


def _ends(metric: Metric) -> str:
    return metric.ends.replace("{limit}", "the sphere's limit")
