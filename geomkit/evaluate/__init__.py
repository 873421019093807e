"""Evaluation on tasks: zero-shot classification and linear probes."""
