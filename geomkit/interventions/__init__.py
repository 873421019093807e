"""Closing the gap after training."""
