"""Two-encoder models: towers, tokenizers, projections and checkpoints of every kind."""

__all__ = ["FREEZES"]

FREEZES = ("image", "text", "backbone")
"""Parts of a model that can be frozen, see :func:`geomkit.models.projections.freeze`."""
