"""Figures of reports are drawn small: what they show is tested, not how finely."""

from __future__ import annotations

import pytest

from geomkit.reproduce.framework import report


@pytest.fixture(autouse=True)
def small_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "DPI", 30)
