"""``geomkit losses``."""

from __future__ import annotations

import json

from . import console

__all__ = ["losses"]


def losses(*, as_json: bool = False) -> None:
    """List the losses: the named ones, and the terms that --loss adds up.

    Args:
        as_json (--json): Print one JSON object.

    Examples:
        $ geomkit losses
        $ geomkit losses --json
    """
    from geomkit.losses import PRESETS, TERMS, parse_loss

    products = {p.name: parse_loss(p.name).products for p in PRESETS.values()}
    if as_json:
        listed = {
            "presets": {
                p.name: {"sum": p.weights, "source": p.source, "products": products[p.name]}
                for p in PRESETS.values()
            },
            "terms": {
                t.name: {
                    "summary": t.summary, "source": t.source, "products": t.products,
                    "logit_bias": t.logit_bias, "uses_temperature": t.uses_temperature,
                }
                for t in TERMS.values()
            },
        }  # fmt: skip
        console.out(json.dumps({"schema_version": 1, **listed}, ensure_ascii=False))
        return
    names = max(map(len, [*PRESETS, *TERMS]))
    console.out("named")
    for p in PRESETS.values():
        text = f"{p.weights}{_cost(products[p.name])}  ({p.source})"
        console.words(f"  {p.name:{names}}  {text}", indent=names + 4)
    console.out("\nterms")
    for t in TERMS.values():
        has = ["the temperature"] * t.uses_temperature + ["a bias"] * (t.logit_bias is not None)
        of = f"; with {' and '.join(has)}" if has else ""
        text = f"{t.summary}{of}{_cost(t.products)}  ({t.source})"
        console.words(f"  {t.name:{names}}  {text}", indent=names + 4)
    console.words(
        "\ncost: products of n × d with d × n matrices in a forward pass, n pairs in d dimensions"
    )


def _cost(products: int | None) -> str:
    return {None: "", 0: "; cost n·d"}.get(products, f"; cost {products} n²·d")
