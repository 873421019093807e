"""Embeddings: unit rows by modality, and every format they are read from."""

from geomkit.embeddings.embeddings import Embeddings, read_embeddings, write_embeddings

__all__ = ["Embeddings", "read_embeddings", "write_embeddings"]
