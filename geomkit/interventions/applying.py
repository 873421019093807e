"""From an intervention's name to what it does to embeddings and to a model."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any, cast

import numpy as np

from geomkit.embeddings.embeddings import Embeddings
from geomkit.embeddings.reading import naming
from geomkit.embeddings.rows import Rows, TakenRows
from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError, unknown_name
from geomkit.interventions.affine import MODALITIES, Affine
from geomkit.interventions.base import Intervention
from geomkit.interventions.registry import INTERVENTIONS
from geomkit.models.checkpoints.checkpoint import Checkpoint

__all__ = ["check_method", "close_model", "closed", "closed_note", "fit", "halved"]


def closed(
    embeddings: Embeddings, intervention: Intervention, name: str = "", note: str = ""
) -> Embeddings:
    """Return embeddings after an intervention.

    The first modality moves as the images that it was fitted on, the second as the texts.

    Args:
        embeddings: Unit rows; those of a large file move as they are read.
        intervention: A fitted intervention.
        name: What it is called in the meta; default: its name.
        note: What the notes say of it; default: its name.

    Raises:
        GeomkitError: If the dimensions do not fit.

    Example:
        >>> from geomkit.interventions import Procrustes
        >>> turned = Embeddings.of(np.eye(3), np.eye(3)[[1, 2, 0]])
        >>> moved = closed(turned, Procrustes.fit(turned.image, turned.text))
        >>> bool(np.allclose(moved.text, np.eye(3)))
        True
    """

    def moved(rows: Any, modality: str) -> Any:
        if isinstance(rows, Rows | TakenRows):
            intervention.apply(rows[:1], modality)  # a wrong dimension is refused now
            return rows.mapped(lambda block: cast(np.ndarray, intervention.apply(block, modality)))
        return intervention.apply(rows, modality)

    sides = (embeddings.image, embeddings.text)
    image, text = (moved(rows, m) for rows, m in zip(sides, MODALITIES, strict=True))
    name = name or intervention.name
    notes = [*embeddings.meta.get("notes", ()), note or f"closed by {name}"]
    if embeddings.modalities != MODALITIES:
        notes[-1] += "; {} taken for image, {} for text".format(*embeddings.modalities)
    meta = {**embeddings.meta, "norms": embeddings.norms, "notes": notes, "closed_by": name}
    return replace(embeddings, image=image, text=text, meta=meta)


def closed_note(path: str | Path) -> str:
    """What to say of embeddings that go through the intervention of a file."""
    fitted = Intervention.fitted(path)
    return f"closed by {path}" + (f", which was fitted on {fitted}" if fitted else "")


def close_model(checkpoint: Checkpoint, path: str | Path | None) -> Checkpoint:
    """Return a model whose embeddings go through the intervention that a file holds.

    Args:
        checkpoint: A model, which is changed.
        path: File of an intervention; ``None`` for none.

    Raises:
        GeomkitError: If the file cannot be read, or was fitted in another dimension.
    """
    if path is None:
        return checkpoint
    intervention, note = Intervention.load(path), closed_note(path)
    dim = checkpoint.model_config["embed_dim"]
    for modality in MODALITIES:
        with naming(Path(path)):
            intervention.apply(np.eye(1, dim), modality)
    checkpoint.model.after = cast(Any, intervention.apply)
    digest = sha256(Path(path).read_bytes()).hexdigest()
    meta = {
        **checkpoint.meta,
        "notes": [*checkpoint.notes, note],
        "closed_by": {"file": str(path), "method": intervention.name, "sha256": digest},
    }
    return replace(checkpoint, meta=meta)


def halved(embeddings: Embeddings, seed: int = 0) -> tuple[Embeddings, Embeddings]:
    """Return a random half of the images with their texts, and the rest; each in their order.

    Raises:
        GeomkitError: For fewer than four images.

    >>> [half.n for half in halved(Embeddings.of(np.eye(5), np.eye(5)))]
    [2, 3]
    """
    n = embeddings.n
    if seed < 0:
        raise GeomkitError(f"seed: expected 0 or more, got {seed}")
    if n < 4:
        raise GeomkitError(f"close: expected 4 pairs or more to halve, got {n}")
    order = np.random.default_rng(seed).permutation(n)
    first, rest = (embeddings.subset(np.sort(part)) for part in (order[: n // 2], order[n // 2 :]))
    return first, rest


def fit(method: str, moments: Moments) -> Affine:
    """Return a fitted intervention from its name with options.

    Args:
        method: Name of an intervention, with its options as in ``translate:strength=0.5,on=image``.
        moments: Moments of paired rows.

    Raises:
        GeomkitError: For an unknown method or option, a value that does not fit, or rows that the
            method cannot be fitted on.

    Example:
        >>> moments = Moments.of(np.eye(3), np.eye(3)[[1, 2, 0]])
        >>> fit("ridge:penalty=0.5", moments).name
        'ridge'
    """
    kind, options = check_method(method)
    try:
        return kind.of(moments, **options)
    except GeomkitError:
        raise
    except (TypeError, ValueError):
        raise GeomkitError(f"method '{method}': an option has a value that does not fit") from None


def check_method(method: str) -> tuple[type[Affine], dict[str, Any]]:
    """Return the intervention that a method names, and its options.

    Raises:
        GeomkitError: For an unknown method or option.
    """
    kinds = {name: kind for name, kind in INTERVENTIONS.items() if issubclass(kind, Affine)}
    name, colon, rest = method.partition(":")
    if name not in kinds:
        raise unknown_name("method", name, kinds)
    known = [p for p in list(signature(kinds[name].of).parameters) if p != "moments"]
    options: dict[str, Any] = {}
    for part in rest.split(",") if colon else ():
        option, equals, value = (word.strip() for word in part.partition("="))
        if not (equals and value) or option in options:
            raise GeomkitError(f"method '{method}': expected NAME:OPTION=VALUE,OPTION=VALUE")
        if not known:
            raise GeomkitError(f"method '{method}': {name} takes no options")
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
        options[option] = _number(value)
    return kinds[name], options


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
