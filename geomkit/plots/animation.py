"""Training as an animation: a sphere per snapshot, beside what was measured until then."""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geomkit._core.files import atomic_write, check_target
from geomkit.errors import GeomkitError
from geomkit.plots.interactive import MAX_FRAMES
from geomkit.plots.multiples import Panel, Series, draw_series
from geomkit.plots.planes import modality_handles
from geomkit.plots.spheres import Stage, camera_for, draw_sphere, recorded_stages
from geomkit.plots.stages import epoch_axis
from geomkit.plots.style import dress, style

if TYPE_CHECKING:
    from PIL.Image import Image

    from geomkit.models.checkpoints import TrainedRun

__all__ = ["ANIMATIONS", "can_save_mp4", "frames", "save_animation", "training_frames"]

_TRACES = (
    ("I→T recall@1", "text_retrieval_recall@1", "#2e8b57"),
    ("separability", "linear_separability", "#e08a00"),
)
"""Numbers beside an animated sphere: their names, metrics and colours."""

DPI = 100
COLOURS = 128
SECONDS = 0.3
"""Time that each image is shown; the last is shown eight times as long."""
ANIMATIONS = (".gif", ".mp4")
"""Suffixes of animations."""


def frames(
    stages: Sequence[Stage], times: Sequence[float], traces: Sequence[Series]
) -> list[Image]:
    """Return an image per stage: the sphere, and the traces up to it. Nothing is interpolated.

    Args:
        stages: Spheres in order.
        times: Epoch of each stage.
        traces: Numbers to draw beside the sphere: a value per stage, within [0, 1].

    Raises:
        GeomkitError: If there are no stages, or not one time per stage.
    """
    if not stages or len(stages) != len(times):
        raise GeomkitError(f"expected stages and a time of each, got {len(stages)}, {len(times)}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    camera = camera_for(stages)
    images = []
    for k, stage in enumerate(stages):
        with style():
            figure = Figure(figsize=(6.0, 3.2), dpi=DPI)
            draw_sphere(figure.add_axes((0.0, 0.06, 0.5, 0.82)), stage, camera)
            axes = dress(figure.add_axes((0.6, 0.17, 0.37, 0.62)), x="Epoch", grid="y")
            for trace in traces:
                values, plain = trace.value, replace(trace, low=(), high=())
                axes.plot(times, values, **trace.look | {"alpha": 0.2, "linewidth": 1.0})
                past = replace(plain, x=times[: k + 1], value=values[: k + 1])
                now = replace(plain, name="", x=[times[k]], value=[values[k]], marker="o", size=4)
                for series in (past, now):
                    draw_series(axes, series, Panel())
            epoch_axis(axes, max(times))
            axes.set_ylim(-0.02, 1.04)
            if traces:
                axes.legend(loc="lower left", bbox_to_anchor=(-0.06, 1.0), fontsize=7, ncols=2,
                            handlelength=1.8, columnspacing=1.0)  # fmt: skip
            figure.legend(handles=modality_handles(), loc="lower left", ncols=2, fontsize=7.5,
                          bbox_to_anchor=(0.12, 0.0))  # fmt: skip
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    return images


def training_frames(run: TrainedRun, count: int) -> list[Image]:
    """Return an image per stage of a training run, with recall and separability up to it.

    Args:
        run: A 2-D or 3-D training run, with snapshots.
        count: Number of stages; fewer if there are fewer snapshots.

    Raises:
        GeomkitError: As :func:`~geomkit.plots.spheres.training_stages`.
    """
    found = recorded_stages(run, count, most=MAX_FRAMES)
    times = [record.epoch for _, record in found]
    traces = []
    for name, metric, colour in _TRACES:
        values = [record.metrics.get(metric, math.nan) for _, record in found]
        if all(map(math.isfinite, values)):
            traces.append(Series(name, times, values, colour=colour))
    return frames([stage for stage, _ in found], times, traces)


def can_save_mp4() -> bool:
    """Return whether ffmpeg is on the PATH."""
    return shutil.which("ffmpeg") is not None


def save_animation(images: Sequence[Image], path: Path, *, overwrite: bool = False) -> None:
    """Save images as an animation, atomically, in the format of the path's suffix.

    Args:
        images: Images of one size, in order.
        path: File to write: ``.gif``, or ``.mp4`` where ffmpeg is installed.
        overwrite: Whether to replace an existing file.

    Raises:
        GeomkitError: For another suffix, without ffmpeg, or as
            :func:`geomkit._core.files.check_target`.
    """
    suffix = path.suffix.lower()
    if suffix not in ANIMATIONS:
        raise GeomkitError(f"{path}: an animation is saved as .gif or .mp4, not '{path.suffix}'")
    if not images:
        raise GeomkitError(f"{path}: no images to animate")
    check_target(path, overwrite=overwrite)
    save = _save_gif if suffix == ".gif" else _save_mp4
    save(images, path, overwrite)


def _save_gif(images: Sequence[Image], path: Path, overwrite: bool) -> None:
    from PIL import Image

    # One palette for all: else colours flicker, and Pillow cannot omit what does not change.
    shown = [np.asarray(images[k]) for k in (0, len(images) // 2, -1)]
    palette = Image.fromarray(np.concatenate([*shown, _vivid(shown)])).quantize(COLOURS)
    reduced = [one.quantize(palette=palette, dither=Image.Dither.NONE) for one in images]
    times = [round(1000 * SECONDS)] * (len(reduced) - 1) + [round(8000 * SECONDS)]
    with atomic_write(path, overwrite=overwrite) as file:
        reduced[0].save(
            file, format="GIF", save_all=True, append_images=reduced[1:], duration=times, loop=0,
            optimize=False,
        )  # fmt: skip


def _vivid(images: Sequence[np.ndarray]) -> np.ndarray:
    """As many pixels, all of them coloured: else the greys of the sphere fill the palette."""
    pixels = np.concatenate([image.reshape(-1, 3) for image in images])
    spread = pixels.max(axis=1).astype(int) - pixels.min(axis=1)
    coloured = pixels[spread > 40]
    if not len(coloured):
        coloured = pixels
    return np.resize(coloured, (len(images) * len(images[0]), *images[0].shape[1:]))


def _save_mp4(images: Sequence[Image], path: Path, overwrite: bool) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        raise GeomkitError(f"{path}: needs ffmpeg, which is not on the PATH; save a .gif instead")
    width, height = (side // 2 * 2 for side in images[0].size)  # yuv420p needs even sides
    shown = [*images, *[images[-1]] * 7]
    raw = b"".join(one.crop((0, 0, width, height)).convert("RGB").tobytes() for one in shown)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.mp4"
        ran = subprocess.run(
            [program, "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
             "-s", f"{width}x{height}", "-r", f"{1 / SECONDS:g}", "-i", "-", "-an",
             "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(made)],
            input=raw,
            capture_output=True,
        )  # fmt: skip
        if ran.returncode or not made.exists():
            said = ran.stderr.decode(errors="replace").strip().splitlines()
            raise GeomkitError(f"{path}: ffmpeg failed ({said[-1] if said else ran.returncode})")
        with atomic_write(path, overwrite=overwrite) as file:
            file.write(made.read_bytes())
