"""Embeddings: what is accepted, normalised, refused, read and written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clouds

from geomkit.embeddings.embeddings import Embeddings, normalize, read_embeddings, write_embeddings
from geomkit.errors import GeomkitError


def test_rows_become_unit_and_their_norms_are_reported() -> None:
    x, y = clouds(n=5, d=3)
    e = Embeddings.of(x * 3, y * np.arange(1, 6)[:, None])
    np.testing.assert_allclose(np.linalg.norm(e.text, axis=1), 1, rtol=1e-15)
    np.testing.assert_allclose(e.image, x, rtol=1e-14)
    assert e.meta["norms"]["text"] == pytest.approx([1, 5])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_rows_survive_float32(scale: float) -> None:
    unit, norms = normalize(np.array([[3, 4], [4, 3]], np.float32) * np.float32(scale))
    np.testing.assert_allclose(unit[0], [0.6, 0.8], rtol=1e-6)
    assert norms[0] == pytest.approx(5 * scale, rel=1e-6)


def test_half_precision_is_upcast() -> None:
    assert normalize(np.ones((2, 3), np.float16))[0].dtype == np.float32
    assert normalize(torch.ones(2, 3, dtype=torch.bfloat16))[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (np.ones((2, 3, 4)), r"\(n, d\) matrix"),
        (np.ones((1, 3)), "at least two rows"),
        (np.ones((0, 3)), "at least two rows"),
        (np.ones((3, 0)), "at least one number"),
        (np.ones((3, 3), int), "floating-point"),
        (np.ones((3, 3), complex), "floating-point"),
        (np.array([[1, 2], [np.nan, 1], [np.inf, 0]]), "NaN or infinity in rows 1, 2"),
        (np.array([[1.0, 2], [0, 0], [1, 0]]), "zeros in row 1"),
        (np.array([["a", "b"], ["c", "d"]]), "floating-point"),
    ],
)
def test_unfit_rows_are_refused(rows: np.ndarray, says: str) -> None:
    with pytest.raises(GeomkitError, match=f"^image: .*{says}"):
        Embeddings.of(rows, np.eye(3))


@pytest.mark.parametrize(
    ("text", "index", "says"),
    [
        (np.eye(4), None, "got 3 and 4"),
        (np.eye(3), [0, 1], "expected 3 integers"),
        (np.eye(3), [0.0, 1.0, 2.0], "expected 3 integers"),
        (np.eye(3), [0, 1, 3], r"0\.\.2"),
        (np.eye(3), [0, 1, 1], "image 2 has no text"),
    ],
)
def test_unfit_pairings_are_refused(text: np.ndarray, index, says: str) -> None:
    with pytest.raises(GeomkitError, match=says):
        Embeddings.of(np.eye(3), text, index)


def test_first_texts_follow_the_order_of_the_rows() -> None:
    e = Embeddings.of(np.eye(2), np.eye(2)[[0, 1, 0, 1]], [1, 0, 1, 0])
    assert e.first_texts(0).tolist() == [1, 0]
    assert e.first_texts(1).tolist() == [3, 2]
    with pytest.raises(GeomkitError, match="image 0 has only 2"):
        e.first_texts(2)


def test_written_and_read_again(tmp_path: Path) -> None:
    x, y = clouds(n=6, d=4)
    e = Embeddings.of(x, y[[0, 0, 1, 2, 3, 4, 5]], [0, 0, 1, 2, 3, 4, 5])
    path = tmp_path / "e.npz"
    write_embeddings(path, e)
    again = read_embeddings(path)
    np.testing.assert_array_equal(again.image_index, e.image_index)
    np.testing.assert_allclose(again.text, e.text, rtol=1e-15)
    with pytest.raises(GeomkitError, match="exists already"):
        write_embeddings(path, e)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_tensors_of_two_precisions_or_kinds() -> None:
    x, y = (torch.from_numpy(rows) for rows in clouds(n=5, d=3))
    e = Embeddings.of(x.float(), y)
    assert e.image.dtype == e.text.dtype == torch.float64
    with pytest.raises(GeomkitError, match="expected both on one device"):
        Embeddings.of(x, y.numpy())


def test_a_caption_that_no_image_has_is_refused_even_with_one_each() -> None:
    with pytest.raises(GeomkitError, match="image 0 has only 1"):
        Embeddings.of(np.eye(3), np.eye(3)).pairs(7)
