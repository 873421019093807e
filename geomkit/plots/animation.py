"""Training as a moving picture: a sphere a snapshot, beside what was measured until then."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geomkit._core.files import atomic_write, check_target
from geomkit.errors import GeomkitError
from geomkit.plots.spectrum import modality_handles
from geomkit.plots.sphere import Stage, camera_for, draw_sphere
from geomkit.plots.stages import epoch_axis
from geomkit.plots.style import INK, panel, style

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Trace", "can_save_mp4", "frames", "save_animation"]

DPI = 100
COLOURS = 128
SUFFIXES = (".gif", ".mp4")


@dataclass(frozen=True)
class Trace:
    """A number over time.

    Attributes:
        name: in the legend.
        values: one a stage, within [0, 1].
        colour, dashes: of the line.
    """

    name: str
    values: Sequence[float]
    colour: str = INK
    dashes: str = "-"


def frames(
    stages: Sequence[Stage],
    times: Sequence[float],
    traces: Sequence[Trace],
    *,
    pairs: int = 1000,
) -> list[Image]:
    """A picture a stage: the sphere, and the traces up to it. Nothing between stages is made up.

    Args:
        stages: spheres in order.
        times: epochs of each.
        traces: numbers to draw beside.
        pairs: draw at most so many of each.

    Raises:
        GeomkitError: if there are no stages, or not a time a stage.
    """
    if not stages or len(stages) != len(times):
        raise GeomkitError(f"expected stages and a time of each, got {len(stages)}, {len(times)}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    camera = camera_for(stages)
    pictures = []
    for k, stage in enumerate(stages):
        with style():
            figure = Figure(figsize=(6.0, 3.2), dpi=DPI)
            draw_sphere(figure.add_axes((0.0, 0.06, 0.5, 0.82)), stage, camera, pairs=pairs)
            axes = panel(figure.add_axes((0.6, 0.17, 0.37, 0.62)), x="Epoch", grid="y")
            for trace in traces:
                axes.plot(times, trace.values, color=trace.colour, linestyle=trace.dashes,
                          alpha=0.2, linewidth=1.0)  # fmt: skip
                axes.plot(times[: k + 1], trace.values[: k + 1], color=trace.colour,
                          linestyle=trace.dashes, label=trace.name)  # fmt: skip
                axes.plot([times[k]], [trace.values[k]], color=trace.colour, marker="o")
            epoch_axis(axes, max(times))
            axes.set_ylim(-0.02, 1.04)
            if traces:
                axes.legend(loc="lower left", bbox_to_anchor=(-0.06, 1.0), fontsize=7, ncols=2,
                            handlelength=1.8, columnspacing=1.0)  # fmt: skip
            figure.legend(handles=modality_handles(), loc="lower left", ncols=2, fontsize=7.5,
                          bbox_to_anchor=(0.12, 0.0))  # fmt: skip
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    return pictures


def can_save_mp4() -> bool:
    """Whether ffmpeg is here."""
    return shutil.which("ffmpeg") is not None


def save_animation(
    pictures: Sequence[Image], path: Path, *, seconds: float = 0.3, overwrite: bool = False
) -> None:
    """Save pictures as an animation, atomically, in the format of the path's suffix.

    Args:
        pictures: of one size, in order.
        path: ``.gif``, or ``.mp4`` where ffmpeg is.
        seconds: that each stays; the last stays eight times as long.
        overwrite: replace what is there.

    Raises:
        GeomkitError: for another suffix, without ffmpeg, or as
            :func:`geomkit._core.files.check_target`.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise GeomkitError(f"{path}: an animation is saved as .gif or .mp4, not '{path.suffix}'")
    if not pictures:
        raise GeomkitError(f"{path}: no pictures to animate")
    check_target(path, overwrite=overwrite)
    if suffix == ".gif":
        _save_gif(pictures, path, seconds, overwrite)
    else:
        _save_mp4(pictures, path, seconds, overwrite)


def _save_gif(pictures: Sequence[Image], path: Path, seconds: float, overwrite: bool) -> None:
    from PIL import Image

    # One palette for all, or colours flicker and Pillow cannot leave out what stays the same.
    shown = [np.asarray(pictures[k]) for k in (0, len(pictures) // 2, -1)]
    palette = Image.fromarray(np.concatenate([*shown, _vivid(shown)])).quantize(COLOURS)
    reduced = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    times = [round(1000 * seconds)] * (len(reduced) - 1) + [round(8000 * seconds)]
    with atomic_write(path, overwrite=overwrite) as file:
        reduced[0].save(
            file, format="GIF", save_all=True, append_images=reduced[1:], duration=times, loop=0,
            optimize=False,
        )  # fmt: skip


def _vivid(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """As many pixels again, all of them coloured: or the greys of the sphere take every place."""
    pixels = np.concatenate([picture.reshape(-1, 3) for picture in pictures])
    spread = pixels.max(axis=1).astype(int) - pixels.min(axis=1)
    coloured = pixels[spread > 40]
    if not len(coloured):
        coloured = pixels
    return np.resize(coloured, (len(pictures) * len(pictures[0]), *pictures[0].shape[1:]))


def _save_mp4(pictures: Sequence[Image], path: Path, seconds: float, overwrite: bool) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        raise GeomkitError(f"{path}: needs ffmpeg, which is not on the PATH; save a .gif instead")
    width, height = (side // 2 * 2 for side in pictures[0].size)  # what its colours need
    shown = [*pictures, *[pictures[-1]] * 7]
    raw = b"".join(p.crop((0, 0, width, height)).convert("RGB").tobytes() for p in shown)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.mp4"
        ran = subprocess.run(
            [program, "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
             "-s", f"{width}x{height}", "-r", f"{1 / seconds:g}", "-i", "-", "-an",
             "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(made)],
            input=raw,
            capture_output=True,
        )  # fmt: skip
        if ran.returncode or not made.exists():
            said = ran.stderr.decode(errors="replace").strip().splitlines()
            raise GeomkitError(f"{path}: ffmpeg failed ({said[-1] if said else ran.returncode})")
        with atomic_write(path, overwrite=overwrite) as file:
            file.write(made.read_bytes())
