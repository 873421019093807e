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
    from geomkit.interventions.closing import Closing, Scores

__all__ = ["close", "load_fit", "say_fit"]


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
        fit: For a model, the split to fit on; for embeddings, another file to fit on. Default: for
            a geomkit checkpoint train, else a random half of the images, and the other half is
            measured.
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
    from geomkit.interventions.applying import check_method
    from geomkit.interventions.closing import SHOWN, check_measured
    from geomkit.interventions.closing import close as run

    if options.close is not None:
        raise GeomkitError("--close applies to other commands: this one fits rows as they are")
    limits = _limits(keep or [])
    if limits and best is None:
        raise GeomkitError("--keep limits the choice of --best; give that too")
    methods = method or ["all"]
    for one in methods if methods != ["all"] else ():
        check_method(one)
    asked = [word.strip() for word in metrics.split(",")] if metrics else list(SHOWN)
    more = ["zeroshot_acc1"] if zeroshot else []
    names = check_measured(asked, [*([best] if best else []), *limits], *more)
    if out is not None:
        check_target(out, overwrite=overwrite)
        if out.suffix != ".safetensors":
            raise GeomkitError(f"--out {out}: an intervention is written to a .safetensors file")
        if best is None and (len(methods) > 1 or methods == ["all"]):
            raise GeomkitError("--out writes one method; give one --method, or --best METRIC")
    if fit_only:
        others = (best, fit, metrics, zeroshot, exact_limit)
        if out is None or as_json or any(others) or len(methods) != 1 or methods == ["all"]:
            raise GeomkitError("--fit-only measures nothing: it takes one --method and --out alone")
        _write_fit(source, methods[0], caption_index, out, overwrite, options)
        return
    scores = _zeroshot(source, zeroshot, options) if zeroshot else None
    embeddings, split, fit_on, fit_from = load_fit(source, fit, options)
    found = run(
        embeddings,
        methods,
        fit_on=fit_on,
        fit_from=fit_from,
        metrics=names,
        caption_index=caption_index,
        seed=seed,
        exact_limit=exact_limit,
        source=source,
        split=split,
        scores=scores,
    )
    chosen = found.best(best, limits) if best else found.outcomes[0]
    if out is not None and chosen is not None:
        with sole_writer(out):
            where = f"{source}, {found.fitted}"
            chosen.intervention.save(out, fitted=where, overwrite=overwrite)
    if as_json:
        named = {"best": chosen.method if chosen else None} if best else {}
        whole = {**found.to_dict(), **named}
        console.out(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        console.table(found.table())
    console.line(f"{source}: fitted on {found.fitted}; measured on {found.before.n:,} others")
    say_fit(source, found)
    for name, reason in found.left_out.items():
        console.line(f"{source}: {name} left out: {reason}")
    if best and chosen is None:
        kept = f"keeps to {', '.join(keep)} and " if keep else ""
        now = f"{found.value(best):.4f}"
        raise GeomkitError(f"--best: no method {kept}brings {best} nearer to its ideal than {now}")
    if best and chosen:
        console.line(f"{source}: best by {best}: {chosen.method}, chosen on the measured rows")
    if out is not None:
        console.line(f"{source}: {chosen.method if chosen else ''} written to {out}")


def say_fit(source: str, found: Closing) -> None:
    """Print what makes the numbers of a table less than they look."""
    say_few(source, found.moments.n, found.before.dim)
    if found.shared:
        console.line(
            f"{source}: {found.shared:,} of the measured images are among those fitted on too: "
            "their numbers flatter the maps"
        )
    if found.before.estimated:
        console.line(
            f"{source}: ~ estimated from {found.before.meta['queries']:,} rows against all "
            f"{found.before.n:,}"
        )


def say_few(source: str, pairs: int, dim: int) -> None:
    """Print that there are fewer pairs than dimensions, if so."""
    if pairs < dim:
        console.line(
            f"{source}: {pairs:,} pairs are fewer than the {dim} dimensions: maps with a whole "
            "matrix are hardly determined"
        )


def _write_fit(
    source: str, method: str, caption_index: int, out: Path, overwrite: bool, options: ModelOptions
) -> None:
    from geomkit._core.files import sole_writer
    from geomkit.engine.moments import Moments
    from geomkit.interventions.applying import check_method, fit

    check_method(method)
    with sole_writer(out):
        embeddings, _ = load_one(source, options)
        if not embeddings.equal_dims:
            raise GeomkitError(f"{source}: images and texts have different dimensions")
        moments = Moments.of(*embeddings.pairs(caption_index)).numpy()
        where = f"{source}, all {embeddings.n:,} pairs"
        fit(method, moments).save(out, fitted=where, overwrite=overwrite)
    say_few(source, moments.n, embeddings.dim)
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
    from geomkit.models.checkpoints.kinds import find_kind
    from geomkit.sources import open_source
    from geomkit.tasks.zeroshot import zeroshot_scores

    if find_kind(source) is None:
        raise GeomkitError("--zeroshot: applies to models, these are embeddings")
    checkpoint = open_source(source, download=options.download)
    classes = load_classes(data, preprocess=checkpoint.preprocess, fast_decode=options.fast_decode)
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision or "fp32", device)
    return zeroshot_scores(
        checkpoint, classes, device=device, precision=precision, workers=options.workers
    )
