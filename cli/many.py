"""Any number of SOURCES, each with a distinct name, and the figure that a command makes of them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._core.shown import shown
from geomkit.errors import GeomkitError

from . import console
from .options import FigureOut, ModelOptions, Overwrite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geomkit.embeddings.embeddings import Clouds, Embeddings
else:  # the annotations of a command are evaluated, matplotlib is imported when it draws
    Figure = Any

__all__ = ["Figure", "draws", "load_all", "load_one", "say_notes", "says_data", "short_names"]

_LONG = 60
"""Characters of a name that a figure has room for."""


def draws(out: str) -> Callable[[Callable[..., Figure]], Callable[..., None]]:
    """Return a decorator: of a function that returns a figure, a command that saves it.

    The command checks --out before it draws, and prints it at the end.

    Args:
        out: Default of --out.
    """

    def decorate(make: Callable[..., Figure]) -> Callable[..., None]:
        @wraps(make)
        def command(*, out: Path, overwrite: bool, **given: Any) -> None:
            from geomkit._core.files import sole_writer
            from geomkit.plots import check_figure_path, save_figure

            check_figure_path(out, overwrite=overwrite)
            with sole_writer(out), _glyphs_said():
                save_figure(make(**given), out, overwrite=overwrite)
            console.wrote(out)

        option = partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                *inspect.signature(make, eval_str=True).parameters.values(),
                option("out", default=Path(out), annotation=FigureOut),
                option("overwrite", default=False, annotation=Overwrite),
            ]
        )
        return command

    return decorate


@contextmanager
def _glyphs_said() -> Iterator[None]:
    """Matplotlib's warnings that its font lacks characters become one line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message="Glyph .* missing")
        yield
    lacking = {str(w.message).split()[1] for w in caught if str(w.message).startswith("Glyph")}
    if lacking:
        words = "".join(chr(int(code)) for code in sorted(lacking, key=int)[:8])
        console.line(f"the font of the figure lacks {words}: they are drawn as boxes")
    for w in caught:
        if not str(w.message).startswith("Glyph"):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)


def load_one(source: str, options: ModelOptions) -> tuple[Embeddings, str | None]:
    """Return the embeddings of a source and the split that they are, if known.

    What of the data is not used is said on stderr.

    Raises:
        GeomkitError: As :func:`geomkit.extraction.load.load_source`.
    """
    from geomkit.extraction.load import load_source

    embeddings, split = load_source(source, **options.arguments(), announce=says_data(source))
    say_notes(source, embeddings)
    return embeddings, split


def says_data(source: str) -> Callable[[str], None]:
    """Return a function that prints the DATA spec that a checkpoint names."""
    return lambda spec: console.line(f"{source}: embeds the data that it names, {spec}")


def say_notes(source: str, embeddings: Embeddings | Clouds) -> None:
    """Print what was assumed of a source, and what of it is not used."""
    console.notes(source, embeddings.meta.get("notes", ()))


def load_all(sources: Sequence[str], options: ModelOptions) -> dict[str, Embeddings]:
    """Return the embeddings of each source, by a short name with its split.

    Raises:
        GeomkitError: If there is no source, or as :func:`geomkit.extraction.load.load_source`.
    """
    if not sources:
        raise GeomkitError("name at least one checkpoint, file or folder of embeddings")
    found: dict[str, Embeddings] = {}
    for name, source in zip(short_names(sources), sources, strict=True):
        embeddings, split = load_one(source, options)
        label = name + (f", {split}" if split else "")
        found[f"{label} ({len(found) + 1})" if label in found else label] = embeddings
    return found


def short_names(sources: Sequence[str]) -> list[str]:
    """Return the end of each path, as much as distinguishes it from the others.

    The middle of a long one is left out, if the rest distinguishes it too: a figure has no room.

    >>> short_names(["runs/a/ckpt.pt", "runs/b/ckpt.pt"]), short_names(["x/clip.pt", "x/cua.pt"])
    (['a/ckpt.pt', 'b/ckpt.pt'], ['clip.pt', 'cua.pt'])
    """
    parts = [Path(source).parts or (source,) for source in sources]
    depth = 1
    longest = max(map(len, parts), default=1)
    while depth < longest and len({p[-depth:] for p in parts}) < len(set(parts)):
        depth += 1
    whole = [shown("/".join(p[-depth:])) for p in parts]
    short = [n if len(n) <= _LONG else f"{n[: _LONG // 2]}…{n[-_LONG // 2 :]}" for n in whole]
    return short if len(set(short)) == len(set(whole)) else whole
