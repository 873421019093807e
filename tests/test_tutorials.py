"""The cells of the tutorials run, in one process and without a notebook."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.md"))
CELL = re.compile(r"^```\{code-cell\} ipython3\n((?::[^\n]*\n)*)(.*?)^```$", re.M | re.S)
WHOLE = int(os.environ.get("GEOMKIT_EXAMPLES", "0")) >= 1000
"""Whether trainings are as long as a reader's, and what they claim is checked, as in the docs."""
LENGTH = re.compile(r"""((?:steps|eval_every)"?\s*[=:]\s*)(\d+)""")
SHOWN = ("_repr_html_", "_repr_mimebundle_", "_repr_png_")


def cells(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, options and code of each cell, without magics, and with trainings of a few steps."""
    source = path.read_text(encoding="utf-8")
    for found in CELL.finditer(source):
        options, code = found.groups()
        line = source.count("\n", 0, found.start(2))
        if not WHOLE and "train(" in source:
            code = LENGTH.sub(lambda n: f"{n[1]}{max(2, int(n[2]) // 10)}", code)
            code = "pass" if "remove-cell" in options and "assert" in code else code
        yield line, options, re.sub(r"^%.*", "pass", code, flags=re.M)


def shown(value: Any) -> Any:
    """A value of which a notebook could show what it shows."""
    for name in SHOWN:
        if hasattr(value, name):
            getattr(value, name)()
    if hasattr(value, "savefig"):
        value.canvas.draw()
    return value


def run(path: Path) -> list[Any]:
    """Run the cells of a tutorial; return the values that a reader sees."""
    names: dict[str, Any] = {"__name__": "__main__"}
    values = []
    for line, options, code in cells(path):
        tree = ast.parse(code, str(path))
        ast.increment_lineno(tree, line)  # so that a traceback shows the line of the tutorial
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(path), "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), str(path), "eval"), names)
            if value is not None and "remove-" not in options:
                values.append(shown(value))
    return values


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_cells_run_and_end_in_a_figure(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    last = run(path)[-1]
    assert type(last).__name__ == "Figure"


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_every_cell_is_found(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(list(cells(path))) == source.count("{code-cell}") > 0
    assert "../shared" not in source and "plt.show" not in source
