"""What the modules of a package declare is found without a list."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from geomkit._core.discovery import registry
from geomkit.errors import GeomkitError
from geomkit.losses import Preset


def test_values_come_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "toys"
    package.mkdir()
    make = "from geomkit.losses import Preset\nA, B = Preset('{}', 'clip'), Preset('{}', 'clip')\n"
    (package / "__init__.py").write_text("")
    (package / "alpha.py").write_text(make.format("a", "b") + "from toys.zeta import B\nC = 'c'\n")
    (package / "zeta.py").write_text(make.format("y", "z"))
    (package / "broken.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        found = registry("toys", Preset, skip=["broken"])
        assert list(found) == ["a", "z", "y"] and found["a"].weights == "clip"
        assert list(registry("toys", Preset, first=["zeta"], skip=["broken"])) == ["y", "z", "a"]
        (package / "other.py").write_text(make.format("y", "x"))
        with pytest.raises(GeomkitError, match=r"toys\.zeta: the name 'y' is taken"):
            registry("toys", Preset, skip=["broken"])
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "toys"]:
            del sys.modules[name]
