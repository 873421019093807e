"""SIMAT: its tables, its scoring by hand, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import unit
from task_samples import OSCAR, QUERIES, TRIPLETS, nano, write_all, write_tables

from geomkit.data.simat import Simat, load_simat, simat_tables
from geomkit.errors import GeomkitError
from geomkit.tasks.simat import simat, simat_scores, weighted

REAL = Path(__file__).parents[3] / "shared" / "data" / "simat"


def test_photographs_are_found_by_region_not_by_dataset_id(tmp_path: Path) -> None:
    tables = simat_tables(write_tables(tmp_path))
    assert tables.regions == ("10", "30", "70", "99")
    assert tables.folders[2] == "A cat on a grass"
    assert tables.source.tolist() == [2, 0]  # neither is the row that its dataset_id names
    assert tables.target.tolist() == [0, 1] and tables.field.tolist() == ["subj", "obj"]
    assert tables.words.tolist() == [["cat", "dog"], ["grass", "bed"]]
    np.testing.assert_allclose(tables.weight, [1 / 2, 1.0])
    assert len(simat_tables(tmp_path, split="test")) == 1


def hand() -> tuple[np.ndarray, dict[str, np.ndarray], Simat]:
    """Photographs 0 to 3 along the axes of a plane and between; two words along the first axis."""
    image = unit(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    words = {"cat": np.array([0.0, 1.0]), "dog": np.array([1.0, 0.0])}
    tables = Simat(
        ("10", "30", "70", "99"),
        ("",) * 4,
        source=np.array([2, 0, 2]),
        target=np.array([0, 1, 1]),
        words=np.array([("cat", "dog"), ("dog", "cat"), ("cat", "dog")]),
        field=np.array(["subj"] * 3),
        weight=np.array([1.0, 0.5, 0.25]),
    )
    return image, words, tables


def test_the_score_is_what_a_hand_computes() -> None:
    image, words, tables = hand()
    right = np.array([[1, 0], [0, 0], [0, 1], [0, 1]], bool)
    # Query 0: (0,1) + (1,−1) = (1,0): photographs 0 and 1 are level, one of them shows caption 0.
    # Query 1: (1,0) + (−1,1) = (0,1): photograph 2, which shows caption 1.
    # Query 2: as query 0; neither of 0 and 1 shows caption 1.
    credit = simat_scores(image, words, tables, right)
    np.testing.assert_allclose(credit, [0.5, 1.0, 0.0])
    part = weighted(credit, tables)
    assert part.value == pytest.approx(100 * (1.0 * 0.5 + 0.5 * 1.0 + 0.25 * 0.0) / 1.75)
    # Two photographs, 2 and 0: residuals weighted and added up within each, m/(m − 1) of two.
    m, w = part.value / 100, tables.weight / 1.75
    sums = [w[0] * (0.5 - m) + w[2] * (0.0 - m), w[1] * (1.0 - m)]
    assert part.stderr == pytest.approx(100 * np.sqrt(2 * np.sum(np.square(sums))))


def test_a_photograph_never_answers_its_own_query() -> None:
    image, words, tables = hand()
    right = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], bool)
    # Without words the nearest photograph to 0 is its twin 1, not itself; to 2 it is 3.
    credit = simat_scores(image, words, tables, right, strength=0.0)
    assert credit.tolist() == [0.0, 1.0, 1.0]


def test_scores_agree_with_the_data_sets_own_rule(tmp_path: Path) -> None:
    """Top two, the second where the first is the query's own; weights normalised."""
    rng = np.random.default_rng(0)
    n, captions, q = 30, 12, 50
    image = unit(rng.standard_normal((n, 8)))
    vocabulary = [f"word {i}" for i in range(9)]
    words = dict(zip(vocabulary, unit(rng.standard_normal((9, 8))), strict=True))
    pairs = np.array([rng.choice(vocabulary, 2, replace=False) for _ in range(q)])
    source, target = rng.integers(0, n, q), rng.integers(0, captions, q)
    weight = rng.integers(1, 50, q) ** -0.5
    tables = Simat(("",) * n, ("",) * n, source, target, pairs, np.array(["obj"] * q), weight)
    oscar = rng.random((n, captions))
    for strength in (0.5, 1.0, 2.0):
        scores = []
        for s, t, (value, wanted) in zip(source, target, pairs, strict=True):
            cosines = image @ (image[s] + strength * (words[wanted] - words[value]))
            first, second = np.argsort(-cosines)[:2]
            scores.append(oscar[first if first != s else second, t] > 0.5)
        expected = 100 * np.average(scores, weights=weight / weight.sum())
        found = weighted(simat_scores(image, words, tables, oscar > 0.5, strength=strength), tables)
        assert found.value == pytest.approx(expected)


def test_a_model_is_scored_on_files(tmp_path: Path) -> None:
    root = write_all(tmp_path / "SIMAT")
    tables, data, right = load_simat(root, preprocess=nano().preprocess)
    assert data.pixels().shape == (4, 32, 32, 3) and right.tolist() == np.eye(4).tolist()
    middle = data.pixels()[:, 16, 16, 0].astype(int)
    assert np.abs(middle - [0, 60, 120, 180]).max() < 10  # in the order of OSCAR's rows
    results = simat(nano(), root, strengths=(0.0, 1.0), workers=0)
    assert [r.strength for r in results] == [0.0, 1.0]
    for r in results:
        assert r.dataset == f"simat:{root}" and r.split == "dev" and r.gallery == 4
        assert r.counts == {"simat_score": 2, "simat_score_obj": 1, "simat_score_subj": 1}
        # One photograph of three shows the caption.
        assert r.chance["simat_score"] == pytest.approx(100 / 3)
        parts = (r.metrics["simat_score_subj"] * 0.5 + r.metrics["simat_score_obj"]) / 1.5
        assert r.metrics["simat_score"] == pytest.approx(parts)
        json.dumps(r.to_json(), allow_nan=False)
    assert "simat_score" in str(results[0]) and tables.field.tolist() == ["subj", "obj"]


def test_photographs_that_do_not_decode_take_their_queries_along(tmp_path: Path) -> None:
    root = write_all(tmp_path)
    (root / "simat_db/images/A dog on a grass/10.jpg").write_bytes(b"no picture")
    with pytest.raises(GeomkitError, match="image 10 does not decode"):
        simat(nano(), root, workers=0)
    (result,) = simat(nano(), root, workers=0, max_bad=0.5)
    assert [b.id for b in result.bad] == ["10"] and result.gallery == 3
    assert result.counts["simat_score"] == 1  # from photograph 70


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def says(root: Path, text: str, *, split: str = "dev") -> None:
        with pytest.raises(GeomkitError, match=text):
            load_simat(root, preprocess=nano().preprocess, split=split)

    says(tmp_path / "none", "no SIMAT here")
    root = write_all(tmp_path / "ok")
    says(root, "did you mean 'test'", split="tests")
    db = root / "simat_db"
    torch.save(OSCAR[:3], db / "oscar_similarity_matrix.pt")
    says(root, "expected a matrix of 4 photographs and 2 captions or more, got \\(3, 4\\)")
    torch.save({"a": 1}, db / "oscar_similarity_matrix.pt")
    says(root, "got dict")
    (db / "oscar_similarity_matrix.pt").write_bytes(pickle.dumps(print))
    says(root, "oscar_similarity_matrix.pt: holds objects that pickle wrote")
    (db / "oscar_similarity_matrix.pt").unlink()
    says(root, "no such file")
    (db / "transfos.csv").write_text("region_id,field\n1,subj\n")
    says(root, "no column 'value'")
    write_tables(db, queries=[(5, "subj", "cat", "dog", 0, 4, False, 3)])
    says(root, "region 5 is not in")
    write_tables(db, queries=[(70, "subj", "cat", "dog", "x", 4, False, 3)])
    says(root, "target_ids or norm2")
    write_tables(db, queries=[(70, "subj", "cat", "dog", 0, 0, False, 3)])
    says(root, "a positive norm2")
    write_tables(db, queries=[QUERIES[2]])
    says(root, "no queries of the split dev")
    write_tables(db, triplets=[*TRIPLETS[:3], (99, "cat", "on a", "bed", 7)])
    says(root, "expected dataset_id 0 to 3, each once")


def test_the_command_scores_simat(cli, tmp_path: Path) -> None:
    from geomkit.training.config import configure
    from geomkit.training.loop import train

    options = {"model": "nano", "batch_size": 16, "steps": 1, "warmup": 1, "pairs": 32}
    train(configure(dim=8, loss="cua", recipe="standard", **options), tmp_path / "ckpt.pt")
    root = write_all(tmp_path / "SIMAT")
    outcome = cli("arithmetic", "ckpt.pt", "--data", f"simat:{root}", "--workers", 0, "--json")
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["lambda"] == 1.0 and found["n"]["simat_score"] == 2 and found["split"] == "dev"
    table = cli("arithmetic", "ckpt.pt", "--data", f"simat:{root}", "--workers", 0, "--split=test")
    assert table.status == 0 and "simat_score (n=1)" in table.out


@pytest.mark.skipif(not REAL.is_dir(), reason="SIMAT's tables are not here")
def test_the_published_tables_parse() -> None:
    dev, test = simat_tables(REAL), simat_tables(REAL, split="test")
    assert len(dev) + len(test) == 17_996 and len(dev.regions) == 5_859
    assert len(set(dev.words.flat)) == 129 and set(dev.field) == {"subj", "rel", "obj"}
    assert max(dev.target.max(), test.target.max()) == 644
    # The photograph of a query shows the word that is taken away.
    for tables in (dev, test):
        for source, (value, _) in zip(tables.source[:500], tables.words[:500], strict=True):
            assert value in tables.folders[source]
