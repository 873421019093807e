"""Extraction: model and data to embedding shards, resumable."""
