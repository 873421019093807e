"""Embeddings: unit rows by modality, and every file format they are read from."""

from geomkit.embeddings.embeddings import Embeddings, from_loaded, read_embeddings, write_embeddings

__all__ = ["Embeddings", "from_loaded", "read_embeddings", "write_embeddings"]
