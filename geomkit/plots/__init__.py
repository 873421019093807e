"""Figures: functions that return a matplotlib ``Figure``, one style, and how to save one."""

from geomkit.plots.style import IMAGE_COLOUR, TEXT_COLOUR, check_figure_path, save_figure

__all__ = ["IMAGE_COLOUR", "TEXT_COLOUR", "check_figure_path", "save_figure"]
