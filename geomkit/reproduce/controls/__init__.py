"""Same-modality controls."""
