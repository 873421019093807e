"""Training: configuration, the linear loop, its monitor and trackers."""
