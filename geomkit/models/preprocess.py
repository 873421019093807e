"""Preprocess: what a model does to an image before its first layer.

Importing this module does not import torch: the processes that decode images use it too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from geomkit._core.schema import check_schema
from geomkit.errors import GeomkitError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

__all__ = ["KNOWN", "OPENAI_MEAN", "OPENAI_STD", "Preprocess"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of each colour channel that OpenAI's CLIP, and most models since, are trained with."""
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of each colour channel, as :data:`OPENAI_MEAN`."""

KNOWN = {
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos", "random"),
    "resize_mode": ("shortest", "longest", "squash"),
    "mode": ("RGB",),
}
"""Words that :func:`geomkit.data.decode.prepare` knows."""
_STORED = ("size", "mode", "mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class Preprocess:
    """Image preprocessing in open_clip's terms: geometry, then standardisation.

    The geometry (``size``, ``interpolation``, ``resize_mode``, ``fill_color``) is applied to 8-bit
    pixels by :func:`geomkit.data.decode.prepare`; mean and standard deviation are applied by
    :meth:`to_pixels`, on the model's device.

    Attributes:
        size: Side of the square image in px.
        mean: Mean of each colour channel, in [0, 1].
        std: Standard deviation of each colour channel.
        interpolation: One of :data:`geomkit.data.decode.INTERPOLATIONS`.
        resize_mode: One of :data:`geomkit.data.decode.RESIZE_MODES`.
        mode: Colour mode, always ``RGB``.
        fill_color: Grey value of the border that ``longest`` adds.
        stored: Names and order of the entries of :meth:`as_dict`.

    >>> Preprocess(32).resize_mode
    'shortest'
    """

    size: int
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    mode: str = "RGB"
    fill_color: int = 0
    stored: tuple[str, ...] = field(default=_STORED, compare=False, repr=False)

    @staticmethod
    def for_model(model_config: Mapping[str, Any]) -> Preprocess:
        """OpenAI's preprocessing at the image size of an open_clip model config.

        Raises:
            GeomkitError: if the architecture's images are not square.
        """
        size = model_config["vision_cfg"].get("image_size", 224)
        if isinstance(size, list | tuple):
            if len(set(size)) > 1:
                raise GeomkitError(f"model config: expected square images, got {tuple(size)} px")
            size = size[0]
        return Preprocess(size)

    @staticmethod
    def from_dict(content: Mapping[str, Any], *, where: str = "preprocess") -> Preprocess:
        """Preprocessing from the entries a file holds; :meth:`as_dict` returns them again.

        Args:
            content: The entries.
            where: Name of the file and entry in errors.

        Raises:
            GeomkitError: if an entry is missing or unknown, or of a wrong type.
        """
        check_schema(content, Preprocess, where)
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in content.items()
        }
        found = Preprocess(**given | {"stored": tuple(content)})
        for name, known in KNOWN.items():
            if getattr(found, name) not in known:
                raise GeomkitError(f"{where}: {unknown_name(name, getattr(found, name), known)}")
        channels = len(found.mean) == len(found.std) == 3
        if found.size < 1 or not channels or not all(0 < abs(x) < math.inf for x in found.std):
            raise GeomkitError(f"{where}: expected a size, and mean and std of three channels")
        return found

    def as_dict(self) -> dict[str, Any]:
        """The entries to store, as plain values.

        >>> list(Preprocess(32).as_dict())
        ['size', 'mode', 'mean', 'std', 'interpolation', 'resize_mode']
        """
        values = {name: getattr(self, name) for name in self.stored}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def explicit(self, *, first: bool = False) -> Preprocess:
        """Return the same preprocessing with ``fill_color`` among the stored entries.

        Args:
            first: Whether it comes first among them rather than last.

        >>> list(Preprocess(32).explicit().as_dict())[-1]
        'fill_color'
        """
        if "fill_color" in self.stored:
            return self
        added = ("fill_color",)
        return replace(self, stored=added + self.stored if first else self.stored + added)

    def to_pixels(
        self, images: Tensor | np.ndarray, *, device: torch.device | str | None = None
    ) -> Tensor:
        """Standardised float32 pixels ``(n, 3, h, w)`` of uint8 images ``(n, h, w, 3)``.

        Args:
            images: Images of the size the model takes.
            device: Device to compute on; default: where the images are.
        """
        import torch

        pixels = torch.as_tensor(images)
        if device is not None:
            pixels = pixels.to(device, non_blocking=True)
        pixels = pixels.permute(0, 3, 1, 2).float()
        mean, std = (_by_channel(values, pixels.device) for values in (self.mean, self.std))
        return (pixels / 255.0 - mean) / std


@cache
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Cached, since copying it to the device for every batch would make the host wait."""
    import torch

    return torch.tensor(values, device=device).view(3, 1, 1)
