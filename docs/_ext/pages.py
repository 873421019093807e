"""The pages that are made from the package: its public names, metrics, losses and commands.

:func:`pages` returns all of them as reStructuredText by name. Nothing here needs Sphinx.
"""

from __future__ import annotations

import ast
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from textwrap import dedent, indent
from typing import Any, get_overloads

import toys

import geomkit
from geomkit.losses import PRESETS, TERMS, Preset, Term, parse_loss
from geomkit.metrics import METRICS, Metric


@dataclass(frozen=True)
class Name:
    """A public name and the page that documents it.

    Attributes:
        room: Module that exports it.
        name: Name in that module.
        value: What it is.
        page: Page that documents it; that of an earlier room if it exports the same object.
    """

    room: str
    name: str
    value: Any
    page: str

    @property
    def full(self) -> str:
        """Dotted name."""
        return f"{self.room}.{self.name}"

    @property
    def documented(self) -> str:
        """Dotted name under which its page documents it."""
        return self.page.removeprefix("api/").replace("/", ".")

    @property
    def kind(self) -> str:
        """What it is: a room, class, function or data."""
        if inspect.ismodule(self.value):
            return "room"
        if inspect.isclass(self.value):
            return "exception" if issubclass(self.value, BaseException) else "class"
        return "function" if inspect.isroutine(self.value) else "data"

    @property
    def doc(self) -> str:
        """Its docstring: of data, the string below its assignment."""
        if self.kind == "data":
            return inspect.cleandoc(data_doc(self.room, self.name))
        return inspect.getdoc(self.value) or ""


def rooms() -> list[str]:
    """Return the modules whose ``__all__`` is public: the package and its rooms."""
    found = ["geomkit"]
    for module in pkgutil.iter_modules(geomkit.__path__, "geomkit."):
        last = module.name.rpartition(".")[2]
        if not last.startswith("_") and hasattr(import_module(module.name), "__all__"):
            found.append(module.name)
    return found


@cache
def public_names() -> dict[str, Name]:
    """Return every public name by its dotted name, with the page where it is documented."""
    found: dict[str, Name] = {}
    pages: dict[int, str] = {}
    for room in rooms():
        module = import_module(room)
        for name in module.__all__:
            value = getattr(module, name)
            page = f"api/{room}/{name}"
            if inspect.ismodule(value):
                page = f"api/{value.__name__}"
            elif not isinstance(value, (int, str, tuple)):  # of which equal ones are one object
                page = pages.setdefault(id(value), page)
            found[f"{room}.{name}"] = Name(room, name, value, page)
    return found


def assignment(module: str, name: str) -> tuple[str, ast.Module, int] | None:
    """Return where the module that a name comes from assigns it: module, tree, statement."""
    source = inspect.getsource(import_module(module))
    tree = ast.parse(source)
    for place, node in enumerate(tree.body):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return module, tree, place
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return assignment(node.module, alias.name)
    return None


def data_doc(module: str, name: str) -> str:
    """Return the string below the assignment of a name."""
    found = assignment(module, name)
    if found is not None:
        _, tree, place = found
        below = tree.body[place + 1] if place + 1 < len(tree.body) else None
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            return str(below.value.value)
    return ""


def heading(text: str, mark: str = "=") -> str:
    """Return a heading."""
    return f"{text}\n{mark * len(text)}\n"


def escaped(text: str) -> str:
    """Return plain text as reStructuredText, options as code."""
    text = re.sub(r"([\\`*_|<>])", r"\\\1", text)
    return re.sub(r"(?<![\w-])(--[A-Za-z][\w=-]*)", r"``\1``", text)


def linked(text: str) -> str:
    """Return text with a link for each number of arXiv."""
    return re.sub(r"arXiv\s+(\d{4}\.\d{5})", r"`arXiv \1 <https://arxiv.org/abs/\1>`__", text)


def indexed(name: str) -> str:
    """Return an entry of the index, by which the search finds a name as a whole."""
    return f".. index:: ! {name}\n\n"


def table(headings: Iterable[str], rows: Iterable[Iterable[str]], widths: str = "auto") -> str:
    """Return a table of cells that are reStructuredText."""
    lines = [f".. list-table::\n   :header-rows: 1\n   :widths: {widths}\n"]
    for row in [list(headings), *map(list, rows)]:
        for k, cell in enumerate(row):
            lines.append(f"   {'*' if k == 0 else ' '} - {indent(cell, ' ' * 7).strip()}")
    return "\n".join(lines) + "\n"


def toctree(names: Iterable[str]) -> str:
    """Return a hidden table of contents."""
    return ".. toctree::\n   :hidden:\n\n" + "".join(f"   {name}\n" for name in names)


def summary(doc: str) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join(doc.partition("\n\n")[0].split())


def first_line(doc: str) -> str:
    """Return the first paragraph of a docstring without the links of its roles."""
    return re.sub(r":(?:class|func|meth|mod|data|attr):`[~.]?([^`<]+)`", r"``\1``", summary(doc))


# -- public names -------------------------------------------------------------------------------


def api() -> Iterator[tuple[str, str]]:
    """Yield the pages of the public names."""
    names = public_names()
    yield "api/index", _api_index()
    for room in rooms():
        own = [n for n in names.values() if n.room == room and n.kind != "room"]
        groups = [("Classes", ("class", "exception")), ("Functions", ("function",)),
                  ("Data", ("data",))]  # fmt: skip
        parts = [heading(room), f".. automodule:: {room}\n"]
        for title, kinds in groups:
            rows = [
                (f":doc:`{n.name} </generated/{n.page}>`", first_line(n.doc))
                for n in own
                if n.kind in kinds
            ]
            if rows:
                parts += [heading(title, "-"), table(("name", "what it is"), rows, "30 70")]
        parts.append(toctree(f"/generated/{n.page}" for n in own if n.documented == n.full))
        yield f"api/{room}", "\n".join(parts)
    for name in names.values():
        if name.kind != "room" and name.documented == name.full:
            yield name.page, _name_page(name)


def _api_index() -> str:
    rows = [
        (f":doc:`{room} </generated/api/{room}>`", first_line(import_module(room).__doc__ or ""))
        for room in rooms()
    ]
    return "\n".join(
        [
            heading("Python reference"),
            "Every public name, from the docstrings. ``import geomkit`` gives those of the first "
            "module, and the other modules under their names.\n",
            table(("module", "what it is for"), rows, "30 70"),
            toctree(f"/generated/api/{room}" for room in rooms()),
        ]
    )


def _name_page(name: Name) -> str:
    parts = [heading(name.name), f".. currentmodule:: {name.room}\n"]
    if name.kind == "data":
        shown = name.value if isinstance(name.value, (int, str, tuple)) else None
        given = shown is not None and name.name != "__version__"
        value = f"   :value: {shown!r}\n" if given else ""
        doc = name.doc or "Version of the package."
        parts.append(f".. py:data:: {name.name}\n{value}\n{indent(linked(doc), '   ')}\n")
    elif name.kind == "function":
        parts.append(f".. autofunction:: {name.full}{_signature(name.value)}\n")
        if name.full in toys.EXAMPLES:
            parts.append(
                f"``{toys.EXAMPLES[name.full]}`` of two :ref:`toy clouds <toy-clouds>`, whose "
                "centres are 0.6 apart and not apart:\n"
            )
            parts.append(svg(toys.example(name.full)))
    else:
        bases = "   :show-inheritance:\n" if name.value.__bases__ != (object,) else ""
        parts.append(f".. auto{name.kind}:: {name.full}\n   :members:\n{bases}")
    others = [n.room for n in public_names().values() if n.page == name.page and n is not name]
    if others:
        parts.append(f"Also in {', '.join(f':mod:`{room}`' for room in others)}.\n")
    return "\n".join(parts)


def _signature(function: Callable[..., Any]) -> str:
    """Signature of a function with overloads, which would be shown one after the other."""
    if not get_overloads(function):
        return ""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


# -- metrics ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """Metrics that share one formula, and so a page.

    Attributes:
        metrics: Its metrics.
    """

    metrics: list[Metric]

    @property
    def page(self) -> str:
        """Name of the page."""
        return "metrics/" + re.split("[,@]", self.title)[0]

    @property
    def formula(self) -> Callable[..., Any]:
        """Function whose docstring defines them."""
        return formula_of(self.metrics[0])

    @property
    def title(self) -> str:
        """Names without the modality and the K, unless that is another metric."""
        short = [_short(m.name) for m in self.metrics]
        names = [m.name if s in METRICS else s for m, s in zip(self.metrics, short, strict=True)]
        return ", ".join(dict.fromkeys(names))


def _short(name: str) -> str:
    name = re.sub(r"(?:_image|_text)$", "", re.sub(r"@\d+$", "@K", name))
    return re.sub(r"(^|mixed_)(?:text|image)_retrieval", r"\1retrieval", name)


def formula_of(metric: Metric) -> Callable[..., Any]:
    """Return the function that a metric wraps."""
    return inspect.unwrap(metric.number)


@cache
def families() -> list[Family]:
    """Return the metrics by formula, in the order of tables."""
    found: dict[tuple[str, str], list[Metric]] = {}
    for metric in METRICS.values():
        found.setdefault((metric.group, formula_of(metric).__qualname__), []).append(metric)
    return [Family(metrics) for metrics in found.values()]


def label(metric: str) -> str:
    """Return the anchor of a metric."""
    return f"metric-{metric}"


def definition(function: Callable[..., Any]) -> str:
    """Return the docstring of a formula without its arguments and examples."""
    doc = inspect.getdoc(function) or ""
    doc = re.split(r"^(?:Args|Returns|Raises|Example|Examples):$|^>>> ", doc, flags=re.M)[0]
    return linked(doc.strip())


def metrics() -> Iterator[tuple[str, str]]:
    """Yield the pages of the metrics."""
    curves = toys.metric_curves()
    groups: dict[str, list[Family]] = {}
    for family in families():
        groups.setdefault(family.metrics[0].group, []).append(family)
    parts = [
        ".. _metrics:\n",
        heading("Metrics"),
        f"{len(METRICS)} numbers, in groups. ``geomkit gap --metrics NAME`` measures one or a "
        "group, ``geomkit metrics NAME`` prints its definition.\n",
    ]
    for group, members in groups.items():
        module = inspect.getmodule(members[0].formula)
        about = summary(module.__doc__ or "") if module else ""
        about = about.partition(": ")[2] if about.startswith("Group") else ""
        parts += [heading(group, "-"), f"{about[:1].upper()}{about[1:]}\n"]
        rows = [
            (
                f":ref:`{m.name} <{label(m.name)}>`",
                escaped(m.interpretation()),
                first_line(m.summary),
            )
            for family in members
            for m in family.metrics
        ]
        parts.append(table(("metric", "ends of the scale", "what it is"), rows, "30 30 40"))
    parts += [_toy_clouds(), toctree(f"/generated/{f.page}" for f in families())]
    yield "metrics/index", "\n".join(parts)
    for family in families():
        yield family.page, _metric_page(family, curves)


def _toy_clouds() -> str:
    return "\n".join(
        [
            ".. _toy-clouds:\n",
            heading("The toy clouds", "-"),
            f"The figure on each page shows the metric on {toys.PAIRS} pairs on the sphere in "
            f"{toys.DIM} dimensions. Three knobs are turned, one at a time: the distance of the "
            "two centres, the width of the clouds (the standard deviation of the rows about their "
            "centre, before they are normalised), and the share of captions that belong to "
            "another image. An image and its caption share nearly all of their deviation from the "
            "centres. The knobs that are not turned stay at a distance of "
            f"{toys.DEFAULT.distance:g}, a width of {toys.DEFAULT.width:g} and no wrong caption: "
            "the thin vertical lines. Dotted curves are the null, dashed lines the ideal. In the "
            "figure below images are red, captions blue, and lines join some pairs; it shows the "
            "plane of the two centres.\n",
            svg(toys.figure_of_clouds()),
        ]
    )


def svg(text: str) -> str:
    """Return a drawing as part of a page."""
    return ".. raw:: html\n\n" + indent(f'<div class="drawing">\n{text}\n</div>', "   ") + "\n"


def _metric_page(family: Family, curves: dict[str, toys.Curves]) -> str:
    names = [m.name for m in family.metrics]
    ideal = {m.name: m.ideal_at(toys.DIM) for m in family.metrics if m.ideal is not None}
    rows = [
        (
            f"``{m.name}``", f"{_end(m.low)} … {_end(m.high)}", escaped(m.interpretation()),
            _ideal(m), toys.null_at_rest(curves, m.name),
        )
        for m in family.metrics
    ]  # fmt: skip
    first = family.metrics[0]
    costs = {
        "n·d²": "n·d²: sums of one pass over the rows",
        "n²·d": "n²·d: the cosines of all pairs of rows",
        "rows": "further passes over the rows",
    }
    cost = f"Cost: {costs[first.cost]}."
    if first.estimated:
        cost += " Estimated from sampled rows past ``--exact-limit``, with an error."
    elif first.reduction:
        cost += " Left out past ``--exact-limit``."
    parts = [
        *(f"{indexed(name)}.. _{label(name)}:\n" for name in names),
        heading(family.title),
        f"Group ``{first.group}``. {cost}\n",
        f".. currentmodule:: {family.formula.__module__}\n",
        definition(family.formula) + "\n",
        table(("name", "range", "ends of the scale", "ideal", "null here"), rows),
    ]
    parts.append(
        "The ideal is the value of coinciding pairs spread over the whole sphere, the null that of "
        "the same rows without a gap or without pairing, here of the :ref:`toy clouds "
        "<toy-clouds>` at rest; see :doc:`/conventions`.\n"
    )
    if first.undefined:
        parts.append(f"It can be NaN: {escaped(first.undefined)}.\n")
    parts += [heading("What moves it", "-"), "\n".join(_moved(curves, names)) + "\n"]
    parts.append(svg(toys.figure_of(curves, names, ideal)))
    lines = ["dotted: null"] if set(names) & set(curves["width"].null) else []
    lines += ["dashed: ideal"] if ideal else []
    parts.append("; ".join(["On the :ref:`toy clouds <toy-clouds>`", *lines]) + ".\n")
    if first.pitfalls:
        parts += [heading("Pitfalls", "-"), *_pitfalls(family)]
    return "\n".join(parts)


def _pitfalls(family: Family) -> Iterator[str]:
    """The pitfalls of a family, with names where they differ."""
    texts = dict.fromkeys(m.pitfalls for m in family.metrics)
    for text in texts:
        names = [f"``{m.name}``" for m in family.metrics if m.pitfalls == text]
        yield (f"{', '.join(names)}: " if len(texts) > 1 else "") + linked(text) + "\n"


def _moved(curves: dict[str, toys.Curves], names: list[str]) -> Iterator[str]:
    """What moves the first of the names, and those that another knob moves most."""
    said = set()
    for name in names:
        most = toys.most(curves, name)
        if most not in said:
            said.add(most)
            yield toys.sentence(curves, name, named=len(names) > 1)


def _end(value: float) -> str:
    return {math.inf: "∞", -math.inf: "−∞"}.get(value, f"{value:g}".replace("-", "−"))


def _ideal(metric: Metric) -> str:
    if metric.ideal is None:
        return ""
    if callable(metric.ideal):
        return ", ".join(
            f"{metric.ideal_at(d):.4g} for d = {d}".replace("-", "−") for d in (8, 512)
        )
    return f"{metric.ideal:g}"


# -- losses -------------------------------------------------------------------------------------


def losses() -> Iterator[tuple[str, str]]:
    """Yield the pages of the loss terms and presets."""
    curves = toys.loss_curves()
    presets = [
        (f":ref:`{p.name} <loss-{p.name}>`", _sum(p), linked(p.source)) for p in PRESETS.values()
    ]
    terms = [
        (f":ref:`{t.name} <term-{t.name}>`", escaped(t.summary), linked(t.source))
        for t in TERMS.values()
    ]
    index = [
        ".. _losses:\n",
        heading("Losses"),
        "``geomkit train --loss`` and :class:`geomkit.ContrastiveLoss` take the name of a "
        "preset or any weighted sum of terms, such as ``clip + 0.5*uniformity``.\n",
        heading("Presets", "-"),
        table(("preset", "sum", "source"), presets, "20 45 35"),
        heading("Terms", "-"),
        "x are images, y captions, both unit rows; s = 1/τ is the inverse temperature, and CE "
        "the cross-entropy of each row of a matrix of logits, with its diagonal as the right "
        "answers. Batches have n pairs.\n",
        table(("term", "what it is", "source"), terms, "20 45 35"),
        toctree(f"/generated/losses/{p}" for p in PRESETS),
        toctree(f"/generated/losses/{_term_page(t)}" for t in TERMS),
    ]
    yield "losses/index", "\n".join(index)
    for term in TERMS.values():
        yield f"losses/{_term_page(term.name)}", _term(term, curves)
    for preset in PRESETS.values():
        yield f"losses/{preset.name}", _preset(preset, curves)


def _term_page(name: str) -> str:
    return f"term-{name}"


def _sum(preset: Preset) -> str:
    return escaped(str(parse_loss(preset.weights)))


def _spaced(name: str) -> str:
    return name.replace("_", "\\ ")


def _products(products: int | None) -> str:
    if products is None:
        return "Its cost is not declared."
    if products == 0:
        return "Cost: n·d, which is nothing beside the model."
    many = "one product" if products == 1 else f"{products} products"
    return (
        f"Cost: {many} of n × d with d × n matrices in a forward pass, {products} n²·d for n "
        "pairs in d dimensions."
    )


def _shared(name: str, use: str, curves: dict[str, toys.Curves]) -> list[str]:
    parts = [heading("When to use it", "-"), linked(use) + "\n"] if use else []
    return [
        *parts,
        heading("What moves it", "-"),
        toys.sentence(curves, name) + "\n",
        svg(toys.figure_of(curves, [name], {})),
        f"On the :ref:`toy clouds <toy-clouds>`, τ = {toys.TEMPERATURE:g}.\n",
    ]


def _term(term: Term, curves: dict[str, toys.Curves]) -> str:
    has = []
    if term.uses_temperature:
        has.append("It depends on the temperature.")
    if term.logit_bias is not None:
        has.append(f"The model gets a logit bias, which starts at {term.logit_bias:g}.")
    of = [f":ref:`{p.name} <loss-{p.name}>`" for p in PRESETS.values()
          if term.name in parse_loss(p.weights).weights]  # fmt: skip
    parts = [
        f"{indexed(term.name)}.. _term-{term.name}:\n",
        heading(f"Term {term.name}"),
        f".. currentmodule:: {term.compute.__module__}\n",
        definition(term.compute) + "\n",
        " ".join([f"Source: {linked(term.source)}.", _products(term.products), *has]) + "\n",
    ]
    if of:
        parts.append(f"Part of {', '.join(of)}.\n")
    return "\n".join([*parts, *_shared(term.name, term.use, curves)])


def _preset(preset: Preset, curves: dict[str, toys.Curves]) -> str:
    spec = parse_loss(preset.weights)
    rows = [
        (f":ref:`{name} <term-{name}>`", f"{weight:g}", escaped(TERMS[name].summary))
        for name, weight in spec.weights.items()
    ]
    formula = " + ".join(
        (f"{weight:g}\\," if weight != 1 else "") + rf"L_{{\mathrm{{{_spaced(name)}}}}}"
        for name, weight in spec.weights.items()
    )
    parts = [
        f"{indexed(preset.name)}.. _loss-{preset.name}:\n",
        heading(f"Loss {preset.name}"),
        f".. math:: {formula}\n",
        table(("term", "weight", "what it is"), rows, "25 10 65"),
        f"Source: {linked(preset.source)}. {_products(spec.products)}\n",
        f".. code-block:: console\n\n   $ geomkit train --loss {preset.name}\n",
    ]
    return "\n".join([*parts, *_shared(preset.name, preset.use, curves)])


# -- commands -----------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """Yield the pages of the commands, from the application of the command line."""
    import typer
    from geomkit_cli.app import app

    group: Any = typer.main.get_command(app)
    rows = [
        (f":doc:`geomkit {name} </generated/commands/{name}>`", escaped(_help(command)))
        for name, command in group.commands.items()
    ]
    context = group.context_class(group, info_name="geomkit")
    front = "\n".join(_parameter(p, context) for p in group.params if p.name != "help")
    index = [
        ".. _commands:\n",
        heading("Commands"),
        "From the help of the commands. Data go to stdout, progress and notes to stderr. The "
        "exit status is 0 when done, 1 if a limit that was asked for is not met, 2 for bad "
        "input with one line that says what, where and how to fix it, 130 after Ctrl-C.\n",
        table(("command", "what it does"), rows, "30 70"),
        heading("Options of every command", "-"),
        ".. program:: geomkit\n",
        front,
        toctree(f"/generated/commands/{name}" for name in group.commands),
    ]
    yield "commands/index", "\n".join(index)
    for name, command in group.commands.items():
        yield f"commands/{name}", _command(name, command)


def _help(command: Any) -> str:
    return " ".join((command.help or "").partition("\n\n")[0].split())


def _command(name: str, command: Any) -> str:
    context = command.context_class(command, info_name=f"geomkit {name}")
    usage = command.get_usage(context).removeprefix("Usage: ")
    examples = (command.epilog or "").partition("Examples:\n")[2]
    parts = [
        heading(f"geomkit {name}"),
        f".. program:: geomkit {name}\n",
        f".. code-block:: text\n\n   {' '.join(usage.split())}\n",
        *(f"{escaped(' '.join(p.split()))}\n" for p in (command.help or "").split("\n\n")),
    ]
    if examples:
        parts.append(f".. code-block:: console\n\n{indent(dedent(examples), '   ')}\n")
    panels: dict[str, list[str]] = {}
    for parameter in command.params:
        argument = parameter.param_type_name == "argument"
        panel = "Arguments" if argument else parameter.rich_help_panel or "Options"
        if parameter.name != "help":
            panels.setdefault(panel, []).append(_parameter(parameter, context))
    for panel, members in panels.items():
        parts += [heading(panel, "-"), *members]
    return "\n".join(parts)


def _parameter(parameter: Any, context: Any) -> str:
    names, meaning = parameter.get_help_record(context)
    meaning, bracket, default = meaning.partition("  [")
    said = escaped(meaning)
    if bracket:
        said += f" *{escaped(bracket.strip() + default)}*"
    if parameter.param_type_name == "argument":
        return f"``{names}``\n   {said}\n"
    return f".. option:: {names}\n\n   {said}\n"


def pages() -> dict[str, str]:
    """Return every generated page by name."""
    return dict([*api(), *metrics(), *losses(), *commands()])
