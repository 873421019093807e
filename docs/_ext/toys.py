"""Toy clouds with three knobs, what each metric and loss term is on them, and a figure of it.

Every page of a metric or of a loss term shows how its value moves as one knob turns and the other
two stay. Nothing here is typed by hand: one call of :func:`geomkit.gap` per setting measures all
metrics, and the terms are computed on the same clouds.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

import geomkit
from geomkit.losses import PRESETS, TERMS, ContrastiveLoss, parse_loss
from geomkit.metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS, DIM, TEMPERATURE = 300, 8, 0.05
_STILL = 1e-6
INK, IMAGE, TEXT = "#123456", "#d1342f", "#2464b4"
_THEMED = {INK: "currentColor", IMAGE: "var(--image)", TEXT: "var(--caption)"}
"""Colours of the drawings, and what the page puts in their place in its light and dark style."""
_STYLES = ("-", "--", "-.", (0, (1, 1.5)))


@dataclass(frozen=True)
class Clouds:
    """Two clouds of pairs on the sphere, by the three knobs.

    Attributes:
        distance: Distance of the two centres, 0 to 2, on the unit sphere.
        width: Standard deviation of the rows about their centre before they are normalised.
        wrong: Share of the captions that belong to another image.
    """

    distance: float = 0.6
    width: float = 0.5
    wrong: float = 0.0

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return image and caption rows, ``(n, d)`` each; the same draw for every setting."""
        draw = np.random.default_rng(0)
        shared, of_images, of_texts = draw.standard_normal((3, PAIRS, DIM))
        order = draw.permutation(PAIRS)
        half = math.asin(self.distance / 2)
        centre, other = np.zeros((2, DIM))
        centre[:2], other[:2] = (math.cos(half), math.sin(half)), (math.cos(half), -math.sin(half))
        x = centre + self.width * (shared + 0.3 * of_images)
        y = other + self.width * (shared + 0.3 * of_texts)
        moved = order[: round(self.wrong * PAIRS)]
        y[moved] = y[np.roll(moved, 1)]
        return tuple(rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))


DEFAULT = Clouds()
KNOBS = {
    "distance": ("distance of the clouds", [0.0, 0.1, 0.2, 0.4, 0.6, 0.9, 1.2, 1.6, 2.0]),
    "width": ("width of the clouds", [0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 1.2, 2.0]),
    "wrong": ("share of wrong captions", [0.0, 0.1, 0.25, 0.5, 0.75, 1.0]),
}
"""Knobs: their name in figures and their settings."""


@dataclass(frozen=True)
class Curves:
    """Values at the settings of one knob.

    Attributes:
        values: Value of each setting by name of the metric or term.
        null: The null of each setting, of those that have one.
    """

    values: dict[str, list[float]]
    null: dict[str, list[float]] = field(default_factory=dict)


@cache
def metric_curves() -> dict[str, Curves]:
    """Return the curves of all metrics, by knob."""
    found = {}
    for knob, (_, settings) in KNOBS.items():
        results = [geomkit.gap(*replace(DEFAULT, **{knob: value}).rows()) for value in settings]
        found[knob] = Curves(
            {name: [r.metrics[name] for r in results] for name in METRICS},
            {
                name: [r.null.get(name, math.nan) for r in results]
                for name in METRICS
                if any(name in r.null for r in results)
            },
        )
    return found


@cache
def loss_curves() -> dict[str, Curves]:
    """Return the curves of all terms and presets, by knob, at the default temperature."""
    return {
        knob: Curves(_losses([replace(DEFAULT, **{knob: value}) for value in settings]))
        for knob, (_, settings) in KNOBS.items()
    }


def _losses(clouds: list[Clouds]) -> dict[str, list[float]]:
    """Values of all terms on some clouds, and of the presets, which are sums of them."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    for name, term in TERMS.items():
        loss, values = ContrastiveLoss(name), []
        scale, bias = torch.tensor(1 / TEMPERATURE), torch.tensor(term.logit_bias or 0.0)
        for cloud in clouds:
            x, y = map(torch.from_numpy, cloud.rows())
            torch.manual_seed(0)  # m2_mix draws a number per call: the mean of some
            draws = [loss(x, y, scale, bias) for _ in range(8 if name == "m2_mix" else 1)]
            values.append(float(torch.stack(draws).mean()))
        found[name] = values
    torch.set_num_threads(threads)
    for name in PRESETS:
        parts = [
            weight * np.array(found[term]) for term, weight in parse_loss(name).weights.items()
        ]
        found[name] = np.sum(parts, axis=0).tolist()
    return found


def moved_by(curves: dict[str, Curves], name: str) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest value as each knob turns; knobs without a value left out."""
    found = {}
    for knob, curve in curves.items():
        values = [value for value in curve.values[name] if math.isfinite(value)]
        if values:
            found[knob] = (min(values), max(values))
    return found


def most(curves: dict[str, Curves], name: str) -> str:
    """Return the knob that moves a number most; empty if none does."""
    spans = {knob: high - low for knob, (low, high) in moved_by(curves, name).items()}
    knob = max(spans, key=lambda knob: spans[knob])
    return knob if spans[knob] > _STILL else ""


def sentence(curves: dict[str, Curves], name: str, *, named: bool = False) -> str:
    """Return which knobs move a number, and how far.

    Args:
        curves: Curves by knob.
        name: Metric or term.
        named: Whether to name it.
    """
    it = f"``{name}``" if named else "it"
    ranges = moved_by(curves, name)
    if not most(curves, name):
        return f"None of the three knobs moves {it}."
    spans = {knob: high - low for knob, (low, high) in ranges.items()}
    order = sorted(spans, key=lambda knob: -spans[knob])
    still = [KNOBS[knob][0] for knob in order if spans[knob] <= _STILL]
    moved = [
        f"the {KNOBS[knob][0]} ({_number(ranges[knob][0])} to {_number(ranges[knob][1])})"
        for knob in order
        if spans[knob] > _STILL
    ]
    said = f"Of the three knobs, {moved[0]} moves {it} most"
    if moved[1:]:
        said += f", then {' and '.join(moved[1:])}"
    if still:
        said += f"; the {' and the '.join(still)} {'do' if len(still) > 1 else 'does'} not move it"
    return f"{said}."


def _number(value: float) -> str:
    digits = ",.0f" if abs(value) >= 1000 else ".3g"
    return f"{value:{digits}}".replace("-", "−")


def null_at_rest(curves: dict[str, Curves], name: str) -> str:
    """Return the null of a metric with all knobs at rest; empty if it has none."""
    if name not in curves["width"].null:
        return ""
    return _number(curves["width"].null[name][KNOBS["width"][1].index(DEFAULT.width)])


def figure_of(curves: dict[str, Curves], names: list[str], ideal: dict[str, float]) -> str:
    """Return a figure of three curves as SVG that takes the colours of the page around it.

    Args:
        curves: Curves by knob.
        names: Metrics or terms to draw.
        ideal: Ideal value of those that have one.
    """
    from matplotlib import pyplot

    with _style():
        figure, axes = pyplot.subplots(1, 3, figsize=(7.2, 2.4), sharey=True, layout="constrained")
        for axis, (knob, (label, settings)) in zip(axes, KNOBS.items(), strict=True):
            curve = curves[knob]
            for name, (colour, style) in zip(names, _looks(names), strict=True):
                axis.plot(settings, curve.values[name], linestyle=style, color=colour, marker="o",
                          markersize=3, linewidth=1.4, label=name)  # fmt: skip
                if name in curve.null:
                    axis.plot(settings, curve.null[name], ":", color=colour, linewidth=1.2)
            for value in {round(ideal[n], 9) for n in names if n in ideal}:
                axis.axhline(value, color=INK, linewidth=0.8, linestyle=(0, (6, 4)))
            axis.axvline(getattr(DEFAULT, knob), color=INK, linewidth=0.5)
            axis.set_xlabel(label)
            axis.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(names)),
                          frameon=False, fontsize=8)  # fmt: skip
        return _svg(figure)


def figure_of_clouds() -> str:
    """Return the clouds at three settings of each knob as SVG, on the plane of the two centres."""
    from matplotlib import pyplot

    with _style():
        figure, axes = pyplot.subplots(1, 6, figsize=(7.2, 1.7), layout="constrained")
        shown = [("distance", 0.0), ("distance", 1.2), ("width", 0.1), ("width", 1.2),
                 ("wrong", 0.0), ("wrong", 1.0)]  # fmt: skip
        for axis, (knob, value) in zip(axes, shown, strict=True):
            x, y = replace(DEFAULT, **{knob: value}).rows()
            for one, other in zip(x[:25], y[:25], strict=True):
                ends = zip(one[1::-1], other[1::-1], strict=True)
                axis.plot(*ends, color=INK, linewidth=0.6, zorder=3)
            axis.scatter(x[:, 1], x[:, 0], s=2, color=IMAGE, linewidths=0)
            axis.scatter(y[:, 1], y[:, 0], s=2, color=TEXT, linewidths=0)
            axis.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", xticks=[], yticks=[])
            axis.add_patch(pyplot.Circle((0, 0), 1, fill=False, color=INK, linewidth=0.5))
            axis.axis("off")
            axis.set_title(f"{knob} {value:g}", fontsize=8)
        return _svg(figure)


EXAMPLES = {
    "geomkit.plots.sphere": "plots.sphere(sources)",
    "geomkit.plots.gap": "plots.gap(sources)",
    "geomkit.plots.spectrum": "plots.spectrum(sources)",
    "geomkit.plots.umap": "plots.umap(sources, options=plots.UmapOptions(pairs=150))",
    "geomkit.plots.histograms": "plots.histograms(sources)",
}
"""Calls whose figures the pages of the functions show: of two toy clouds, apart and not."""


def example(name: str) -> str:
    """Return the figure of a function of :data:`EXAMPLES` as HTML, for both themes."""
    import base64

    from geomkit import plots

    sources = {"apart": DEFAULT.rows(), "not apart": replace(DEFAULT, distance=0.0).rows()}
    figure = eval(EXAMPLES[name], {"plots": plots, "sources": sources})
    shown = []
    for theme in ("light", "dark"):
        plots.finish(figure, theme=theme)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=150)
        data = base64.b64encode(out.getvalue()).decode()
        words = f"the figure of {EXAMPLES[name]}"
        shown.append(f'<img class="only-{theme}" alt="{words}" src="data:image/png;base64,{data}">')
    return "\n".join(shown)


def _looks(names: list[str]) -> list[tuple[str, Any]]:
    """A colour and a line style for each name: red for images, blue for texts."""
    if len(names) == 1:
        return [(INK, "-")]
    used: dict[str, int] = {}
    found = []
    for name in names:
        words = name.replace("image_retrieval", "text-to-image").split("_")
        colour = IMAGE if "image" in words or "text_retrieval" in name else TEXT
        colour = INK if name.startswith("cross") else colour
        found.append((colour, _STYLES[used.get(colour, 0) % len(_STYLES)]))
        used[colour] = used.get(colour, 0) + 1
    return found


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    matplotlib.use("Agg")
    settings = {f"{part}.color": INK for part in ("text", "xtick", "ytick")}
    settings |= {"axes.edgecolor": INK, "axes.labelcolor": INK, "axes.linewidth": 0.7}
    settings |= {"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "geomkit"}
    with matplotlib.rc_context(settings):
        yield


def _svg(figure: Figure) -> str:
    from matplotlib import pyplot

    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _THEMED.items():
        text = text.replace(colour, variable)
    return text
