"""Two-encoder models: towers, tokenizers, projections and checkpoints of every kind."""
