"""``geomkit inspect``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from geomkit.models.checkpoints.kinds import model_forms

from . import console
from .options import Download, parse_columns

__all__ = ["inspect"]

_CLEANED = {"none": "as they are", "lowercase": "in lower case"}
_ROWS = {"stripped": "prefix stripped"}


def inspect(
    source: Annotated[
        str,
        typer.Argument(help=f"SOURCE: a geomkit checkpoint, {model_forms()}, or embeddings."),
    ],
    *,
    as_json: bool = False,
    download: Download = False,
    columns: str | None = None,
) -> None:
    """Describe a model or a file of embeddings: architecture, inputs, weights, recipe.

    Args:
        source: What to describe.
        as_json (--json): Print one JSON object.
        download: Whether to download weights.
        columns: Arrays of a file of embeddings: image=NAME,text=NAME.

    Examples:
        $ geomkit inspect ckpt.pt
        $ geomkit inspect open_clip:ViT-B-32/weights.pt --json
    """
    from geomkit.inspection import describe

    found = describe(source, download=download, columns=parse_columns(columns))
    if as_json:
        console.out(json.dumps(found, indent=2, ensure_ascii=False, default=str))
        return
    rows = _embeddings(found) if found["kind"] == "embeddings" else _model(found)
    width = max(len(name) for name, _ in rows) + 1
    for name, text in rows:
        console.words(f"{name + ':':{width}} {' '.join(text.split())}", indent=width + 1)


def _embeddings(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("source", f"{found['source']} ({found['what']})"),
        ("images", f"{found['n']:,}"),
        ("captions", f"{found['m']:,}"),
        ("dimension", f"{found['dim']}"),
        ("stored as", f"{', '.join(found['dtype'])}, shards: {found['shards']}"),
        ("modalities", ", ".join(found["modalities"])),
        *([("read as", found["reading"])] if found["reading"] else []),
        *(("note", note) for note in found["notes"]),
    ]


def _model(found: dict[str, Any]) -> list[tuple[str, str]]:
    shape, counts, pixels = found["architecture"], found["parameters"], found["preprocess"]
    image, text, meta = shape["image"], shape["text"], found["meta"]
    bias = "none" if found["logit_bias"] is None else f"{found['logit_bias']:.6g}"
    words = found["tokenizer"]
    place, clean = words.get("path"), _CLEANED.get(words.get("clean"), words.get("clean"))
    origin = f"from {meta.get('preprocess_from', 'where is not recorded')}"
    rows = [
        ("source", f"{found['source']} ({found['what']})"),
        ("architecture", f"{shape['name'] or 'unknown name'} ({shape['class']})"),
        ("activation", shape["activation"]),
        ("image encoder", _sizes(image)),
        ("text encoder", _sizes(text)),
        ("dimension", f"{found['dim']}"),
        ("temperature", f"{found['temperature']:.6g} (logit scale {1 / found['temperature']:.6g})"),
        ("logit bias", bias),
        (
            "preprocessing",
            f"{pixels['size']} px, {pixels['resize_mode']}, {pixels['interpolation']}, mean "
            f"{_numbers(pixels['mean'])}, std {_numbers(pixels['std'])}; {origin}",
        ),
        ("tokenizer", f"{words['name']}{f' in {place}, captions {clean}' if place else ''}"),
        (
            "parameters",
            f"{counts['image']:,} image, {counts['text']:,} text, {counts['all']:,} total",
        ),
    ]
    for name in ("weights", "other_weights", "stripped", "epoch", "step", "loss"):
        value = meta.get(name)
        if value not in (None, []):
            shown = ", ".join(value) if isinstance(value, list) else str(value)
            rows.append((_ROWS.get(name, name.replace("_", " ")), shown))
    data = meta.get("data") or {}
    if data:
        count = f", {data['n']:,} pairs" if data.get("n") else ""
        rows.append(("data", f"{data.get('spec')}{count}"))
    recipe = (meta.get("config") or {}).get("recipe")
    if recipe:
        rows.append(("recipe", str(recipe)))
    rows.append(("sha256", found["weights_sha256"]))
    return rows + [("note", note) for note in found["notes"]]


def _sizes(tower: dict[str, Any]) -> str:
    shown = [f"{name.replace('_', ' ')} {value}" for name, value in tower.items() if value]
    return ", ".join(shown)


def _numbers(values: list[float]) -> str:
    return "/".join(f"{value:.4g}" for value in values)
