"""Choices that the help of commands lists, without importing what they choose."""

from __future__ import annotations

__all__ = ["PROJECTIONS", "SHOWN"]

PROJECTIONS = ("pca", "umap")
"""Ways to lay embeddings out on a sphere or in a plane."""
SHOWN = (
    "centroid_distance",
    "linear_separability",
    "paired_cosine",
    "relative_modality_gap",
    "uniformity",
    "cross_uniformity",
    "text_retrieval_recall@1",
    "image_retrieval_recall@1",
)
"""Metrics of a gap figure, in its order, which is not that of the table."""
