"""``geomkit close``."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geomkit.errors import GeomkitError

from . import console
from .many import load_one
from .options import ModelOptions, Overwrite

if TYPE_CHECKING:
    from geomkit.embeddings.embeddings import Embeddings
    from geomkit.interventions.closing import Scores

__all__ = ["close", "load_fit"]


def close(
    source: Annotated[
        str, typer.Argument(help="A checkpoint, a model (with --data) or embeddings.")
    ],
    *,
    method: list[str] | None = None,
    fit: str | None = None,
    metrics: str | None = None,
    zeroshot: str | None = None,
    best: str | None = None,
    keep: list[str] | None = None,
    caption_index: int = 0,
    seed: int = 0,
    exact_limit: int | None = None,
    as_json: bool = False,
    fit_only: bool = False,
    out: Path | None = None,
    overwrite: Overwrite = False,
    options: ModelOptions,
) -> None:
    """Close the modality gap after training: what each method gains and what it costs.

    A method is fitted on some pairs and measured on others. The table has each metric after it, and
    in parentheses the change with its standard error over pairs.

    Args:
        source: What to close.
        method: Method with its options, as translate:strength=0.5,on=image; repeatable. Default:
            all, each with its defaults.
        fit: Split to fit on, for a model; or another SOURCE of embeddings. Default: for a geomkit
            checkpoint train, else a random half of the images, and the other half is measured.
        metrics: Comma-separated metrics or groups; recall@K, mixed_recall@K and modality_bias are
            means of both directions. Default: seven that show gain and cost.
        zeroshot: DATA spec of labelled images to classify after each method, for a model.
        best: Metric that the best method brings nearest to its ideal; --out writes that method.
        keep: METRIC:LOSS, repeatable: the best method may bring METRIC at most LOSS farther from
            its ideal.
        caption_index: Text of each image to fit on, and for every metric that is no recall.
        seed: Random seed of the halves, of folds and samples.
        exact_limit: Number of rows up to which all pairs are compared; as for gap.
        as_json (--json): Print one JSON object.
        fit_only: Fit one method on all pairs of SOURCE and write --out; nothing is measured.
        out (--out, -o): File for the fitted intervention, .safetensors, which gap, extract,
            zeroshot and others take as --close.
        overwrite: Whether to replace it.
        options: How models become embeddings.

    Examples:
        $ geomkit close embeddings.npz
        $ geomkit close ckpt.pt --method centre --out map.safetensors
    """
    from geomkit._core.files import check_target, sole_writer
    from geomkit.interventions.closing import SHOWN
    from geomkit.interventions.closing import close as run

    limits = _limits(keep or [])
    if limits and best is None:
        raise GeomkitError("--keep limits the choice of --best; give that too")
    methods = method or ["all"]
    if out is not None:
        check_target(out, overwrite=overwrite)
        if best is None and (len(methods) > 1 or methods == ["all"]):
            raise GeomkitError("--out writes one method; give one --method, or --best METRIC")
    if fit_only:
        if out is None or best or fit or len(methods) != 1 or methods == ["all"]:
            raise GeomkitError("--fit-only takes one --method, --out, and no --best and --fit")
        _write_fit(source, methods[0], caption_index, out, overwrite, options)
        return
    embeddings, split, fit_on, fit_from = load_fit(source, fit, options)
    found = run(
        embeddings,
        methods,
        fit_on=fit_on,
        fit_from=fit_from,
        metrics=[word.strip() for word in metrics.split(",")] if metrics else SHOWN,
        caption_index=caption_index,
        seed=seed,
        exact_limit=exact_limit,
        source=source,
        split=split,
        scores=_zeroshot(source, zeroshot, options) if zeroshot else None,
    )
    chosen = found.best(best, limits) if best else found.outcomes[0]
    if out is not None and chosen is not None:
        with sole_writer(out):
            chosen.intervention.save(out, overwrite=overwrite)
    if as_json:
        named = {"best": chosen.method if chosen else None} if best else {}
        whole = {**found.to_dict(), **named}
        console.out(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        console.table(found.table())
    console.line(f"{source}: fitted on {found.fitted}")
    if (fitted := found.moments.n) < embeddings.dim:
        console.line(
            f"{source}: {fitted:,} pairs are fewer than the {embeddings.dim} dimensions: maps with "
            "a whole matrix are hardly determined"
        )
    for name, reason in found.left_out.items():
        console.line(f"{source}: {name} left out: {reason}")
    if best and chosen is None:
        raise GeomkitError(f"--keep: no method keeps to {', '.join(keep or [])}; allow more")
    if best and chosen:
        console.line(f"{source}: best by {best}: {chosen.method}, chosen on the measured rows")
    if out is not None:
        console.line(f"{source}: {chosen.method if chosen else ''} written to {out}")


def _write_fit(
    source: str, method: str, caption_index: int, out: Path, overwrite: bool, options: ModelOptions
) -> None:
    from geomkit._core.files import sole_writer
    from geomkit.engine.moments import Moments
    from geomkit.interventions.applying import check_method, fit

    check_method(method)
    with sole_writer(out):
        embeddings, _ = load_one(source, options)
        moments = Moments.of(*embeddings.pairs(caption_index)).numpy()
        fit(method, moments).save(out, overwrite=overwrite)
    console.line(f"{source}: {method} fitted on {embeddings.n:,} pairs")
    console.wrote(out)


def load_fit(
    source: str, fit: str | None, options: ModelOptions
) -> tuple[Embeddings, str | None, Embeddings | None, str]:
    """Return the embeddings to measure, their split, and those to fit on if they are others.

    The last value says what those are.

    Raises:
        GeomkitError: If both are the same split, or as :func:`load_one`.
    """
    from geomkit.models.checkpoints.kinds import find_kind

    kind = find_kind(source)
    if kind is None and fit is None:
        return (*load_one(source, options), None, "")
    if kind is None:
        assert fit is not None
        return (*load_one(source, options), load_one(fit, options)[0], fit)
    own = fit or ("train" if kind.knows_data and options.data is None else None)
    if own is None:
        return (*load_one(source, options), None, "")
    measured = options.split or "val"
    if own in (measured, "all") or measured == "all":
        raise GeomkitError(f"--fit {own}: is measured too ({measured}); name another split")
    fit_on, _ = load_one(source, replace(options, split=own))
    return (*load_one(source, options), fit_on, own)


def _limits(words: list[str]) -> dict[str, float]:
    limits: dict[str, float] = {}
    for word in words:
        name, _, text = word.rpartition(":")
        try:
            limit = float(text)
        except ValueError:
            limit = math.nan
        if not name or not 0 <= limit < math.inf:
            raise GeomkitError(f"--keep {word}: expected METRIC:LOSS, such as recall@1:0.01")
        limits[name] = limit
    return limits


def _zeroshot(source: str, data: str, options: ModelOptions) -> Scores:
    """Zero-shot accuracy of a model after an intervention."""
    from geomkit._core.runtime import resolve_device, resolve_precision
    from geomkit.data.labelled import load_classes
    from geomkit.interventions.applying import close_model
    from geomkit.models.checkpoints.kinds import find_kind
    from geomkit.sources import open_source
    from geomkit.tasks.zeroshot import zeroshot_scores

    if find_kind(source) is None:
        raise GeomkitError("--zeroshot: applies to models, these are embeddings")
    checkpoint = close_model(open_source(source, download=options.download), options.close)
    classes = load_classes(data, preprocess=checkpoint.preprocess, fast_decode=options.fast_decode)
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision or "fp32", device)
    return zeroshot_scores(
        checkpoint, classes, device=device, precision=precision, workers=options.workers
    )
