"""Any number of SOURCES, each with a distinct name, and the figure that a command makes of them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from geomkit._core.files import from_home
from geomkit._core.shown import shown
from geomkit.errors import GeomkitError

from . import console
from .options import Drawn, FigureOptions, ModelOptions, Overwrite, PageOut

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from geomkit.embeddings.embeddings import Clouds, Embeddings
    from geomkit.extraction.originals import Originals
else:  # the annotations of a command are evaluated, matplotlib is imported when it draws
    Figure = Any

_T = TypeVar("_T")

__all__ = [
    "Drawing",
    "Figure",
    "draws",
    "for_rows",
    "load_all",
    "load_one",
    "originals",
    "say_notes",
    "says_data",
    "short_names",
]

_LONG = 60
"""Characters of a name that a figure has room for."""


@dataclass(frozen=True)
class Drawing:
    """What a command can draw, made when it is asked for.

    Attributes:
        figure: Function that returns the figure.
        page: Function that returns the HTML of the interactive page, if there is one.
        frames: Function that returns the images of an animation, if there is one.
    """

    figure: Callable[[], Figure]
    page: Callable[[], str] | None = None
    frames: Callable[[], Sequence[Image]] | None = None


def draws(
    default: str, *, animated: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Return a decorator: of a function that returns a figure, a command that saves it.

    The command checks its outputs before it draws, and prints them at the end. A function that
    returns a :class:`Drawing` becomes a command with --html.

    Args:
        default: Default of --out.
        animated: Whether --out may be an animation.
    """

    def decorate(make: Callable[..., Any]) -> Callable[..., None]:
        @wraps(make)
        def command(
            *,
            out: Path | None,
            overwrite: bool,
            look: FigureOptions,
            html: Path | None = None,
            **given: Any,
        ) -> None:
            from geomkit._core.files import check_target, sole_writer
            from geomkit.plots import (
                ANIMATIONS,
                check_figure_path,
                check_page_path,
                finish,
                is_own,
                save_animation,
                save_figure,
                save_page,
            )

            inches = look.inches()
            replace = overwrite
            if out is None and html is None:
                out = Path(default)
                replace = replace or is_own(out)  # a second run draws again what the first drew
            with ExitStack() as held:
                moving = animated and out is not None and out.suffix.lower() in ANIMATIONS
                check_out = check_target if moving else check_figure_path
                for path, check in ((out, check_out), (html, check_page_path)):
                    if path is not None:
                        check(path, overwrite=replace)
                        held.enter_context(sole_writer(path))
                held.enter_context(_glyphs_said())
                made = make(**given)
                if html is not None and out is None:
                    _refuse_look(look, f"{html}")
                page = _made(made.page, "--html", "one source") if html else ""
                if moving:
                    assert out is not None
                    _refuse_look(look, f"{out}")
                    shown = _made(made.frames, f"{out}", "a 2-D or 3-D training run of geomkit")
                    save_animation(shown, out, overwrite=replace)
                elif out is not None:
                    figure = made.figure() if isinstance(made, Drawing) else made
                    finish(figure, title=look.title, inches=inches, theme=look.theme)
                    save_figure(figure, out, overwrite=replace, dpi=look.dpi)
                if html is not None:
                    save_page(page, html, overwrite=overwrite)
            for path in filter(None, (out, html)):
                console.wrote(path)

        signature = inspect.signature(make, eval_str=True)
        option = partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
        declared = typer.Option(
            "--out",
            "-o",
            help=f"Figure file: .png, .pdf{', .svg or .gif' if animated else ' or .svg'}.",
            show_default=default,
        )
        pages = signature.return_annotation is Drawing
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                *signature.parameters.values(),
                option("out", default=None, annotation=Annotated[Path | None, declared]),
                *([option("html", default=None, annotation=PageOut)] if pages else []),
                option("overwrite", default=False, annotation=Overwrite),
                option("look", annotation=FigureOptions),
            ]
        )
        return command

    return decorate


def _refuse_look(look: FigureOptions, path: str) -> None:
    """Refuse options of figures for what they do not change.

    Raises:
        GeomkitError: Naming the option.
    """
    for field in fields(look):
        if getattr(look, field.name) != field.default:
            raise GeomkitError(f"--{field.name}: changes a .png, .pdf or .svg, and not {path}")


def _made(make: Callable[[], _T] | None, what: str, needs: str) -> _T:
    """What a drawing can make.

    Raises:
        GeomkitError: If it cannot.
    """
    if make is None:
        raise GeomkitError(f"{what}: shows {needs}; name that, or save a .png, .pdf or .svg")
    return make()


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


def for_rows(source: str, options: ModelOptions) -> ModelOptions:
    """Return the options to load a source whose images and captions are to be shown.

    Rows from a file are embedded already: --data and --split say what they were made of.
    """
    from geomkit.models.checkpoints.kinds import find_kind

    if find_kind(from_home(source)) is not None:
        return options
    return replace(options, data=None, split=None)


def originals(
    source: str, embeddings: Embeddings, split: str | None, options: ModelOptions
) -> Originals:
    """Return images and captions of embeddings; what is not to be had is said on stderr.

    Raises:
        GeomkitError: If --data was given and does not fit them.
    """
    from geomkit.extraction.originals import Originals

    given = None if "kind" in embeddings.meta else options.data
    split, trust = split or options.split, options.trust_data
    try:
        found = Originals.of(embeddings, split, data=given, trust=trust)
    except GeomkitError as error:
        raise GeomkitError(f"{source}: --data {given}: {error}") from None
    console.notes(source, found.notes)
    known = given or embeddings.meta.keys() & {"kind", "data"}
    if found.notes and embeddings.ids and not known:
        console.line(f"{source}: --data names the data whose captions and images are to be shown")
    return found


def says_data(source: str) -> Callable[[str], None]:
    """Return a function that prints, once, the DATA spec of what a checkpoint was trained on."""
    words = f"{source}: no --data given, so it embeds the data set that it was trained on"
    return lambda spec: console.line(f"{words}, {spec}", once=True)


def say_notes(source: str, embeddings: Embeddings | Clouds) -> None:
    """Print what was assumed of a source, and what of it is not used."""
    console.notes(source, embeddings.meta.get("notes", ()))


def load_all(
    sources: Sequence[str] | None, options: ModelOptions, drawn: Drawn
) -> dict[str, Embeddings]:
    """Return the embeddings of each source, by a label or else a short name with its split.

    Args:
        sources: The sources.
        options: How models become embeddings.
        drawn: Matrices that are a further source, and labels.

    Raises:
        GeomkitError: If there is no source, the labels are not as many, or as
            :func:`geomkit.extraction.load.load_source`.
    """
    sources, matrices = sources or [], drawn.image is not None or drawn.text is not None
    if not sources and not matrices:
        raise GeomkitError("name at least one checkpoint, file or folder of embeddings")
    if matrices and (drawn.image is None or drawn.text is None):
        raise GeomkitError("--image and --text go together; give both")
    given = [word.strip() for word in drawn.labels.split(",")] if drawn.labels else []
    count = len(sources) + matrices
    if given and (len(given) != count or len(set(given)) < count or "" in given):
        raise GeomkitError(
            f"--labels {drawn.labels}: expected {count} different name{'s' * (count > 1)}, with "
            "commas between them"
        )
    found: dict[str, Embeddings] = {}
    if matrices:
        label = given[-1] if given else f"{Path(str(drawn.image)).name}, {drawn.text}"
        last = {label: _pair_of(drawn, options)}
    else:
        last = {}
    for k, (name, source) in enumerate(zip(short_names(sources), sources, strict=True)):
        embeddings, split = load_one(source, options)
        label = given[k] if given else name + (f", {split}" if split else "")
        found[f"{label} ({len(found) + 1})" if label in found else label] = embeddings
    return found | last


def _pair_of(drawn: Drawn, options: ModelOptions) -> Embeddings:
    """The embeddings of --image and --text."""
    from geomkit.embeddings.embeddings import Clouds
    from geomkit.extraction.load import load_modalities

    paths = {"image": str(drawn.image), "text": str(drawn.text)}
    pair = load_modalities(paths, device=options.device, close=options.close)[0]
    say_notes("", pair)  # each note names its file
    if isinstance(pair, Clouds):
        raise GeomkitError(f"{drawn.image}, {drawn.text}: {pair.reason}")
    return pair


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
