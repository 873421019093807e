"""A new data set is one new file: found, parsed, listed, loaded."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import numbers, picture, write

from geomkit.data import datasets, load_data, spec_forms
from geomkit.data.labelled import load_classes, load_parts
from geomkit.errors import GeomkitError
from geomkit.models.preprocess import Preprocess

PAIRS = """
from geomkit.data import Dataset
from geomkit.data.files import Place

def load(request, *, prefix="", loud=False):
    root = request.folder()
    names = sorted(file.name for file in root.glob("*.png"))
    captions = [(prefix + (name.upper() if loud else name),) for name in names]
    return request.pairs(names, captions, places=[Place(str(root))], source="toy")

DATASET = Dataset("toy", load, "a toy", options={"prefix": str, "loud": bool}, path="DIR")
"""
CLASSES = """
import numpy as np
from geomkit.data.labelled.disk import Found, on_disk

def read(root, split):
    pixels = np.zeros((6, 4, 4, 3), np.uint8)
    ids = tuple(f"{split}/{i}" for i in range(6))
    return Found(pixels, np.arange(6) % 2, ("a_b", "c"), ids)

DATASET = on_disk(
    "toyclasses", read, "toy classes", splits=("train", "test"), templates=("a {}.",)
)
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for package, content in (("geomkit.data", PAIRS), ("geomkit.data.labelled", CLASSES)):
        folder = tmp_path / package
        write(folder / "toy.py", content)
        module = importlib.import_module(package)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(folder)])
    datasets.cache_clear()
    yield tmp_path
    datasets.cache_clear()
    for name in ("geomkit.data.toy", "geomkit.data.labelled.toy"):
        sys.modules.pop(name, None)


def test_pairs_from_one_file(toys: Path, cli) -> None:
    for i in range(12):
        write(toys / "images" / f"{i:02d}.png", picture(i))
    spec = f"toy:{toys / 'images'}"
    data = load_data(f"{spec},prefix=a ,loud=yes,n=5", split="all")
    assert len(data) == 5 and data.names[0].startswith("a ") and data.names[0].endswith("PNG")
    train, val = (load_data(f"{spec},seed=2", split=s) for s in ("train", "val"))
    assert sorted([*numbers(train), *numbers(val)]) == list(range(12))
    assert "toy:DIR" in spec_forms() and "toy:DIR: a toy" in cli("data").out
    with pytest.raises(GeomkitError, match="did you mean 'toy'"):
        load_data("toyy:x")
    with pytest.raises(GeomkitError, match=r"toy: .*is 'prefx' an option\? known: prefix, loud, n"):
        load_data(f"{spec},prefx=b")


def test_labelled_images_from_one_file(toys: Path, cli) -> None:
    spec = f"toyclasses:{toys}"
    found = load_classes(spec, preprocess=Preprocess(8))
    assert found.class_names == ("a b", "c") and found.data.split == "test"
    assert found.data.pixels().shape == (6, 8, 8, 3)
    train, test = load_parts(spec, preprocess=Preprocess(8))
    assert (train.data.split, test.data.split) == ("train", "test")
    assert "toyclasses:ROOT" in cli("data").out and "toyclasses" not in datasets()
    with pytest.raises(GeomkitError, match=r"known: openmoji, .*toyclasses"):
        load_classes("toyclass:x", preprocess=Preprocess(8))
