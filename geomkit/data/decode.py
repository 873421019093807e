"""From an image file to the square of uint8 pixels a model takes.

The geometry of a model's preprocessing is applied here, on 8-bit pixels, as in open_clip's own
evaluation transform; mean and standard deviation are applied on the device
(:meth:`geomkit.models.preprocess.Preprocess.to_pixels`).
"""

from __future__ import annotations

import glob
import io
import os
import re
import stat
import unicodedata
import warnings
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from geomkit.errors import GeomkitError, reason, unknown_name
from geomkit.models.preprocess import Preprocess

__all__ = ["INTERPOLATIONS", "RESIZE_MODES", "decode", "prepare"]

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "random": Image.Resampling.BICUBIC,  # open_clip's choice when it evaluates
}
RESIZE_MODES = ("shortest", "longest", "squash")

_DRAFT_GAP = 2
"""A JPEG is decoded at a reduced size only if that size is at least twice the one asked for, which
by Pillow's documentation is hardly different from resampling the whole image."""


_LARGE = 1 << 24
"""Pixels of a resized image from which only those of the square are computed. A thin image has many
more; the square's may then differ by rounding."""

_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's formats that are read. Others are not: it hands PostScript to a program, for one."""

_LARGEST = 1 << 29
"""Samples (width · height · bands) of an image that is decoded; each takes a byte or more."""


def decode(source: Path | bytes, preprocess: Preprocess, *, draft: bool = False) -> np.ndarray:
    """Decode an image and prepare it for a model.

    An EXIF orientation is applied, transparency becomes white, and of an animation the first frame
    is taken.

    Args:
        source: File, or the content of one.
        preprocess: Preprocessing of the model, see :func:`prepare`.
        draft: Whether the JPEG decoder may reduce an image much larger than is asked for.

    Returns:
        Pixels, uint8, shape ``(size, size, 3)``.

    Raises:
        GeomkitError: If it is missing, truncated or no image; the message is the reason, without
            its name.
    """
    try:
        if isinstance(source, Path) and not stat.S_ISREG(source.stat().st_mode):
            raise GeomkitError("is no regular file")  # to open a named pipe would wait for ever
        content = io.BytesIO(source) if isinstance(source, bytes) else source
        # Pillow warns about odd metadata, which do no harm; images of absurd size it refuses.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(content, formats=_formats()) as image:
                if draft and image.format == "JPEG":
                    image.draft("RGB", (wanted := _DRAFT_GAP * preprocess.size, wanted))
                (width, height), bands = image.size, len(image.getbands())
                if width * height * bands > _LARGEST:
                    raise GeomkitError(
                        f"is too large to decode ({width:,} × {height:,} px, {bands} bands)"
                    )
                ImageOps.exif_transpose(image, in_place=True)
                return prepare(image, preprocess)
    except GeomkitError:
        raise
    except FileNotFoundError:
        raise GeomkitError(f"is missing (no such file{_hint(source)})") from None
    except UnidentifiedImageError:
        empty = not source if isinstance(source, bytes) else source.stat().st_size == 0
        raise GeomkitError(f"does not decode ({'empty' if empty else 'not an image'})") from None
    except Exception as error:  # a damaged file makes Pillow's plugins raise many kinds
        why = reason(error)
        if isinstance(source, Path):
            why = why.replace(str(source), "it").replace(repr(str(source)), "it")
        raise GeomkitError(f"does not decode ({why})") from None


def prepare(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """Resize and crop an image as open_clip does for evaluation.

    ``shortest``: its short side becomes ``size``, then the middle square is taken. ``longest``: its
    long side becomes ``size``, and the rest is filled. ``squash``: both sides become ``size``.

    Args:
        image: Image of any mode and size.
        preprocess: Preprocessing of the model; mean and standard deviation are not used.

    Returns:
        Pixels, uint8, shape ``(size, size, 3)``.

    Raises:
        GeomkitError: If the interpolation or resize mode is unknown.

    >>> prepare(Image.new("L", (40, 20), 7), Preprocess(8)).shape
    (8, 8, 3)
    """
    size, mode = preprocess.size, preprocess.resize_mode
    if mode not in RESIZE_MODES:
        raise unknown_name("resize mode", mode, RESIZE_MODES)
    if preprocess.interpolation not in INTERPOLATIONS:
        raise unknown_name("interpolation", preprocess.interpolation, INTERPOLATIONS)
    filter_ = INTERPOLATIONS[preprocess.interpolation]
    image = _rgb(image)
    width, height = image.size
    if mode == "squash":
        return np.asarray(image.resize((size, size), filter_))
    # torchvision truncates the other side; open_clip's ResizeKeepRatio rounds it.
    if mode == "shortest":
        short = min(width, height)
        new = (int(size * width / short), int(size * height / short))
    else:
        long = max(width, height)
        ratio = long / size  # dividing by it, as open_clip does, rounds as it does
        new = (max(1, round(width / ratio)), max(1, round(height / ratio)))
    left, top = round((new[0] - size) / 2.0), round((new[1] - size) / 2.0)
    if mode == "shortest" and new[0] * new[1] > _LARGE:
        x, y = width / new[0], height / new[1]
        box = (left * x, top * y, (left + size) * x, (top + size) * y)
        return np.asarray(image.resize((size, size), filter_, box=box))
    if new != (width, height):
        image = image.resize(new, filter_)
    if mode == "shortest":
        return np.asarray(image.crop((left, top, left + size, top + size)))
    fill = int(preprocess.fill_color)
    canvas = Image.new("RGB", (size, size), (fill, fill, fill))
    canvas.paste(image, ((size - new[0]) // 2, (size - new[1]) // 2))
    return np.asarray(canvas)


@cache
def _formats() -> list[str]:
    """Those of the formats that this Pillow has."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _hint(source: Path | bytes) -> str:
    """What may be wrong with the path of a missing file."""
    path = str(source)
    if path.rpartition("file:/")[1]:
        return "; write the path without file://"
    if re.search("[a-z0-9]{2}:/", path):
        return "; it is a URL, and geomkit downloads no images"
    if "\\" in path:
        return "; it has backslashes: write / for them"
    for form in ("NFC", "NFD"):
        if os.path.exists(unicodedata.normalize(form, path)):  # noqa: PTH110 - never an error
            return f"; there is one with its accents in the form {form} of Unicode"
    before = path.rpartition("#")[0]
    if before and os.path.exists(before):  # noqa: PTH110
        return f"; there is {Path(before).name}: take #… off the names of images"
    near = [] if Path(path).suffix else sorted(glob.glob(glob.escape(path) + ".*"))  # noqa: PTH207
    return f"; there is {Path(near[0]).name}" if near else ""


def _rgb(image: Image.Image) -> Image.Image:
    width, height = image.size
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if width * height <= _LARGE:
        return _strip_rgb(image)
    # The copies that a conversion makes are of one strip at a time.
    whole = Image.new("RGB", image.size)
    step = max(1, _LARGE // width)
    for top in range(0, height, step):
        box = (0, top, width, min(height, top + step))
        whole.paste(_strip_rgb(image.crop(box)), box)
    return whole


def _strip_rgb(image: Image.Image) -> Image.Image:
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):  # convert() would clip 16 bits
        wide = np.asarray(image, dtype=np.float64).clip(0.0, 65535.0)
        return Image.fromarray((wide / 257.0).round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":  # its scale is not known, and convert() would clip it
        raise GeomkitError("does not decode (floating-point pixels; save it with 8 or 16 bits)")
    return image.convert("RGB")
