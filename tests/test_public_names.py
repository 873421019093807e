"""The names that a user finds by completion after ``import geomkit``."""

from __future__ import annotations

import subprocess
import sys

import pytest

import geomkit


@pytest.mark.parametrize("name", geomkit.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(geomkit, name) is not None and name in dir(geomkit)


def test_what_users_look_for_is_among_them() -> None:
    wanted = "gap Embeddings ContrastiveLoss load_source train extract zeroshot probe"
    assert {*wanted.split(), "plots", "interventions", "losses"} <= set(dir(geomkit))
    assert callable(geomkit.train) and callable(geomkit.gap) and callable(geomkit.extract)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        geomkit.nothing  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import geomkit, geomkit.plots, sys\n"
        "geomkit.losses.parse_loss('cua'); geomkit.metrics.METRICS\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'pandas', 'matplotlib', 'plotly', 'umap'}\n"
        "heavy |= {'open_clip', 'jinja2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
