"""The layout of the code: imports run downwards, without a cycle."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
from importlinter import api, cli

import geomkit

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_every_import_contract_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """Contracts in pyproject.toml: layers of rooms, the command line on top, no cycle."""
    status = cli.lint_imports(config_filename=str(PYPROJECT), cache_dir=None)
    assert status == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_modules_form_no_cycle_whether_imported_late_or_for_types_only() -> None:
    graph = grimp.build_graph("geomkit", "geomkit_cli", cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError with the cycle


def test_each_folder_and_file_of_the_library_is_a_room_of_the_contract() -> None:
    contract = next(
        c for c in api.read_configuration(str(PYPROJECT))["contracts_options"] if c["id"] == "rooms"
    )
    rooms = {room.strip() for layer in contract["layers"] for room in layer.split(":")}
    home = Path(geomkit.__file__).parent
    found = {p.stem for p in home.iterdir() if p.is_dir() or p.suffix == ".py"}
    assert found - {"__init__", "__main__", "__pycache__"} == rooms
