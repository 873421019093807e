"""Figures: functions of embeddings or results that return a matplotlib or plotly ``Figure``.

:func:`sphere`, :func:`gap`, :func:`spectrum`, :func:`umap` and :func:`histograms` take arrays,
embeddings or results, and draw with plotly if ``interactive`` is true.
"""

from geomkit.plots.animation import (
    ANIMATIONS,
    can_save_mp4,
    frames,
    save_animation,
    training_frames,
)
from geomkit.plots.closing import closing_panels
from geomkit.plots.figures import PROJECTIONS, gap, histograms, spectrum, sphere, umap
from geomkit.plots.interactive import MAX_FRAMES, interactive_sphere
from geomkit.plots.layout import UmapOptions, umap_sphere
from geomkit.plots.multiples import Panel, Series, draw_panel, small_multiples
from geomkit.plots.page import Labels, check_page_path, save_page, sphere_page
from geomkit.plots.planes import pca_planes, spaced
from geomkit.plots.samples import contact_sheet
from geomkit.plots.spheres import Stage, project_to_sphere, sphere_row, training_stages
from geomkit.plots.stages import stages_figure
from geomkit.plots.style import (
    IMAGE_COLOUR,
    TEXT_COLOUR,
    check_figure_path,
    finish,
    is_own,
    loss_colour,
    loss_marker,
    save_figure,
)

__all__ = [
    "ANIMATIONS",
    "IMAGE_COLOUR", "MAX_FRAMES", "PROJECTIONS", "TEXT_COLOUR", "Labels", "Panel", "Series",
    "Stage", "UmapOptions", "can_save_mp4", "check_figure_path", "check_page_path",
    "closing_panels", "contact_sheet", "draw_panel", "finish", "frames", "gap", "histograms",
    "interactive_sphere", "is_own", "loss_colour", "loss_marker", "pca_planes", "project_to_sphere",
    "save_animation", "save_figure", "save_page", "small_multiples", "spaced", "spectrum", "sphere",
    "sphere_page", "sphere_row", "stages_figure", "training_frames", "training_stages", "umap",
    "umap_sphere",
]  # fmt: skip
