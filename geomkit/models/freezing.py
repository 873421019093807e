"""Which weights of a model are trained.

Importing this module does not import torch.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from geomkit.errors import GeomkitError, unknown_name

if TYPE_CHECKING:
    from geomkit.models.two_encoder import TwoEncoder

__all__ = ["FREEZES", "freeze", "projection_names", "without_biases"]

FREEZES = {"image": ("image",), "text": ("text",), "backbone": ("image", "text")}
"""Parts of a model that :func:`freeze` knows, with the encoders of each."""

_PROJECTION = re.compile(
    r"^(visual\.(proj|attnpool\.c_proj|head\.proj)|(text\.)?(text_projection|proj))"
    r"(\.(\d+\.)?(weight|bias))?$"
)


def projection_names(model: TwoEncoder) -> list[str]:
    """Return the parameters of both encoders' last linear maps, as open_clip names them.

    >>> from geomkit.models import build, model_config
    >>> projection_names(build(model_config("nano")))
    ['text_projection', 'visual.proj']
    """
    return [name for name, _ in model.clip.named_parameters() if _PROJECTION.match(name)]


def without_biases(model: TwoEncoder) -> None:
    """Stop training the biases of fresh projections, where an architecture has any: they stay 0."""
    for name in projection_names(model):
        weight = model.get_parameter(f"clip.{name}")
        if weight.ndim < 2:
            weight.requires_grad_(False)


def freeze(
    model: TwoEncoder,
    what: str | None = None,
    *,
    lock_image: int | None = None,
    lock_text: int | None = None,
    fresh_projection: bool = False,
) -> None:
    """Stop training parts of a model, in place.

    Args:
        model: Model whose weights' ``requires_grad`` changes.
        what: ``image`` or ``text`` for that encoder, with its projection unless it is fresh;
            ``backbone`` for both encoders without their projections.
        lock_image: Number of layer groups at the end of the image encoder that are trained, as
            open_clip counts them (the projection is one group); default: no lock.
        lock_text: Number of layers at the end of the text encoder that are trained, likewise.
        fresh_projection: Whether the projections are new, so that they must be trained.

    Raises:
        GeomkitError: For an unknown part, an encoder that cannot be locked layer by layer, or if no
            weight is left to train.
    """
    from torch import nn

    if what is not None and what not in FREEZES:
        raise unknown_name("part to freeze", what, FREEZES)
    clip: Any = model.clip
    projections = set(projection_names(model))
    trained = {name for name, weight in clip.named_parameters() if weight.requires_grad}
    for side, layers in (("image", lock_image), ("text", lock_text)):
        if layers is not None:
            _lock(clip, side, layers)
            # open_clip's lock also unfreezes: what was frozen before must stay frozen.
            for name, weight in clip.named_parameters():
                if name not in trained:
                    weight.requires_grad_(False)
    sides = FREEZES.get(what or "", ())
    keeps = fresh_projection or what == "backbone"
    for name, weight in clip.named_parameters():
        side = "image" if name.startswith("visual.") else "text"
        if name in ("logit_scale", "logit_bias"):
            continue
        if name in projections and keeps:
            weight.requires_grad_(name in trained)
        elif side in sides:
            weight.requires_grad_(False)
    if "image" in sides and any(isinstance(m, nn.BatchNorm2d) for m in clip.modules()):
        from open_clip.utils import freeze_batch_norm_2d

        clip.visual = freeze_batch_norm_2d(clip.visual)
    if not any(weight.requires_grad for weight in clip.parameters()):
        raise GeomkitError("no weight is left to train; freeze or lock less")


def _lock(clip: Any, side: str, layers: int) -> None:
    if layers < 0:
        raise GeomkitError(f"lock {side}: expected 0 or more unlocked layers, got {layers}")
    try:
        if side == "image":
            clip.lock_image_tower(unlocked_groups=layers, freeze_bn_stats=True)
        else:
            clip.lock_text_tower(unlocked_layers=layers)
    except (AttributeError, AssertionError, NotImplementedError, IndexError) as error:
        raise GeomkitError(
            f"lock {side}: this architecture cannot be locked layer by layer ({error}); "
            f"give --freeze {side}"
        ) from None
