"""The blocks of the README run as they are printed, and print what it shows, numbers aside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
QUICK = ["--steps", "2", "--pairs", "64", "--batch-size", "32", "--eval-every", "2"]
NUMBER = re.compile(r"[<~]?[-−]?\d[\d,.]*(e-?\d+)?")


def blocks(language: str) -> Iterator[str]:
    """The code blocks of a language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def commands() -> Iterator[tuple[list[str], list[str]]]:
    """The words of each command of geomkit, and the lines that follow it."""
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            first, _, rest = part.partition("\n")
            words = first.partition("#")[0].split()
            if words[0] == "geomkit":
                yield words[1:], [line for line in rest.splitlines() if line.strip()]


def shape(line: str) -> str:
    """A line without its numbers, rules and widths."""
    return " ".join(NUMBER.sub("#", line).replace("─", "").split())


def test_console_blocks_print_what_they_show(cli, tmp_path: Path) -> None:
    ran = 0
    for words, shown in commands():
        done = cli(*words, *(QUICK if words[0] == "train" else ()))
        assert done.status == 0, done.err
        printed = {shape(line) for line in (done.out + done.err).splitlines()}
        for line in shown:
            if not line.endswith("."):  # a verdict's words depend on its numbers
                assert shape(line) in printed, (line, printed)
        ran += 1
    assert ran >= 3 and (tmp_path / "ckpt.pt").exists()


def test_every_make_target_that_is_named_exists() -> None:
    targets = re.findall(r"^([\w-]+):", (Path(__file__).parents[1] / "Makefile").read_text(), re.M)
    named = re.findall(r"`?make ([a-z]+)", README)
    assert set(named) <= set(targets) and {"demo", "test", "docs"} <= set(named)


def test_python_blocks_run(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = np.random.default_rng(0).standard_normal((2, 40, 8))
    names = {"image_rows": x, "text_rows": y, "val_loader": [(x, y)], "model": lambda *rows: rows}
    for block in blocks("python"):
        exec(block, names)
    assert names["result"].n == 40


def test_links_lead_to_files() -> None:
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (root / target).exists(), target
