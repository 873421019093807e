"""Closing the gap: fitted on one part, measured on another, applied by every command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import clouds, unit
from extraction_samples import CALM, DIM, fresh, table, write_table

from geomkit.data.labelled import load_classes
from geomkit.embeddings import rows as rows_module
from geomkit.embeddings.embeddings import Clouds, Embeddings, read_embeddings
from geomkit.engine.moments import Moments
from geomkit.errors import GeomkitError
from geomkit.extraction import embed, extract
from geomkit.functional import contrastive
from geomkit.interventions import INTERVENTIONS, Centring, Translation, load
from geomkit.interventions.applying import close_model, closed, fit, halved
from geomkit.interventions.closing import SHOWN, close, shifts
from geomkit.tasks.zeroshot import zeroshot, zeroshot_scores

x, y = clouds(120, 8, seed=5)
pairs = Embeddings.of(x, y, ids=tuple(f"i{k}" for k in range(120)))


def gapped(n: int = 200, d: int = 8, seed: int = 0) -> Embeddings:
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((n, d))
    one, other = (shared + 0.5 * rng.standard_normal((n, d)) for _ in range(2))
    return Embeddings.of(one + 2, other - 2)


def test_every_method_is_measured_with_a_paired_error() -> None:
    found = close(gapped())
    assert {o.method for o in found.outcomes} == set(INTERVENTIONS) and not found.left_out
    for outcome in found.outcomes:
        for name in SHOWN:
            change = found.difference(outcome, name)
            assert change.value == pytest.approx(
                found.value(name, outcome) - found.value(name), abs=1e-12
            )
            assert change.stderr > 0
    centred = next(o for o in found.outcomes if o.method == "centre")
    assert found.difference(centred, "centroid_distance").value < -0.5
    table = found.table()
    assert [row[0] for row in table.sections[1]] == [o.method for o in found.outcomes]
    assert str(found).splitlines()[0].split() == ["method", *SHOWN]
    whole = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(whole["methods"]) == len(INTERVENTIONS)
    cell = whole["methods"][0]["metrics"]["mixed_recall@10"]
    assert set(cell) == {"value", "difference", "stderr", "p_value"}


def test_nothing_of_the_measured_half_reaches_the_fit() -> None:
    """Pairs of the measured half are shuffled: the fit is the same, bit for bit."""
    whole = gapped()
    first, rest = halved(whole, seed=1)
    methods = sorted(INTERVENTIONS)
    before = close(whole, methods, metrics=["alignment"], seed=1)
    order = np.random.default_rng(1).permutation(whole.n)
    measured = np.sort(order[whole.n // 2 :])
    image, text = whole.image.copy(), whole.text.copy()
    image[measured], text[measured] = image[measured[::-1]], text[np.roll(measured, 7)]
    after = close(replace(whole, image=image, text=text), methods, metrics=["alignment"], seed=1)
    given = close(rest, methods, fit_on=first, metrics=["alignment"], seed=1)
    assert before.before.metrics != after.before.metrics
    for one, other, third in zip(before.outcomes, after.outcomes, given.outcomes, strict=True):
        for name, part in vars(one.intervention).items():
            for again in (other, third):
                same = getattr(again.intervention, name)
                assert part is same is None or np.array_equal(part, same), (one.method, name)
        assert one.result.metrics["alignment"] == third.result.metrics["alignment"]


def test_halves_are_disjoint_with_all_their_texts() -> None:
    index = np.array([0, 0, 1, 2, 3, 4, 4, 4, 5])
    e = Embeddings.of(x[:6], y[:9], index, ids=tuple("abcdef"))
    first, rest = halved(e, seed=3)
    assert set(first.ids) | set(rest.ids) == set("abcdef") and first.n == rest.n == 3
    assert first.m + rest.m == 9
    for half in (first, rest):
        for j, image in enumerate(half.image_index):
            original = np.flatnonzero((e.text == half.text[j]).all(axis=1))[0]
            assert e.ids[index[original]] == half.ids[image]


def test_best_is_nearest_to_the_ideal_among_those_that_keep() -> None:
    found = close(gapped())
    best = found.best("mixed_recall@10")
    assert best is not None
    assert all(
        found.value("mixed_recall@10", o) <= found.value("mixed_recall@10", best)
        for o in found.outcomes
    )
    kept = found.best("modality_bias", {"recall@1": 0.0})
    assert kept is None or found.value("recall@1", kept) >= found.value("recall@1")
    assert found.best("modality_bias", {"recall@1": -1.0}) is None
    with pytest.raises(GeomkitError, match="alignment: was not measured"):
        found.best("alignment")
    two = close(gapped(), ["centre"], metrics=["gap_alignment_image"])
    with pytest.raises(GeomkitError, match="no value of it is ideal"):
        two.best("gap_alignment_image")


@pytest.mark.parametrize(
    ("method", "match"),
    [
        ("centring", "unknown method 'centring'; did you mean 'centre'"),
        ("translate:speed=1", "unknown option of translate 'speed'"),
        ("translate:strength", "NAME:OPTION=VALUE"),
        ("translate:strength=1,strength=2", "NAME:OPTION=VALUE"),
        ("translate:strength=fast", "value that does not fit"),
        ("translate:on=audio", "modality"),
        ("ridge:penalty=-1", "penalty"),
    ],
)
def test_unknown_methods_and_options_are_refused(method: str, match: str) -> None:
    with pytest.raises(GeomkitError, match=match):
        close(pairs, [method])


def test_a_method_that_cannot_be_fitted_is_left_out_of_many() -> None:
    """Without a gap there is no direction to project away."""
    same = Embeddings.of(x, x)
    found = close(same, metrics=["alignment"])
    assert {"project", "remove-components", "remove-dimensions"} <= set(found.left_out)
    assert "no gap" in found.left_out["project"]
    with pytest.raises(GeomkitError, match="no gap"):
        close(same, ["project"])


def test_unfit_embeddings_are_refused() -> None:
    with pytest.raises(GeomkitError, match="4 pairs or more"):
        close(Embeddings.of(x[:3], y[:3]))
    with pytest.raises(GeomkitError, match="different dimensions"):
        close(Embeddings.of(x, y[:, :5]))
    with pytest.raises(GeomkitError, match="8 dimensions to fit on, got 4"):
        close(pairs, fit_on=Embeddings.of(x[:, :4], y[:, :4]))
    with pytest.raises(GeomkitError, match="at least one method"):
        close(pairs, [])


def test_options_reach_the_method() -> None:
    moments = Moments.of(x, y)
    one = fit("translate:strength=0.5,on=image", moments)
    other = Translation.of(moments, strength=0.5, on="image")
    assert np.array_equal(one.image_offset, other.image_offset) and one.text_offset is None


def test_closed_embeddings_are_those_of_the_intervention() -> None:
    centred = Centring.fit(x, y)
    moved = closed(pairs, centred)
    np.testing.assert_array_equal(moved.image, centred.apply(pairs.image))
    np.testing.assert_array_equal(moved.text, centred.apply(pairs.text, "text"))
    assert moved.ids == pairs.ids and moved.meta["closed_by"] == "centre"
    other = Embeddings.of(x, y, modalities=("audio", "video"))
    assert closed(other, centred).meta["notes"] == [
        "closed by centre; audio taken for image, video for text"
    ]


def test_rows_of_a_large_file_move_as_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e.npz"
    np.savez(path, image=3 * x, text=y)
    found = close(read_embeddings(path), ["centre"])
    small = closed(read_embeddings(path), Centring.fit(x, y))
    monkeypatch.setattr(rows_module, "_IN_MEMORY", 0)
    large = read_embeddings(path)
    assert isinstance(large.image, rows_module.Rows)
    moved = closed(large, Centring.fit(x, y))
    np.testing.assert_allclose(moved.image[:], small.image, atol=1e-12)
    np.testing.assert_allclose(moved.text[5:9], small.text[5:9], atol=1e-12)
    again = closed(moved, Centring.fit(np.asarray(small.image), np.asarray(small.text)))
    assert again.image[:].shape == x.shape
    lazily = close(large, ["centre"])
    for name in found.before.metrics:
        assert lazily.outcomes[0].result.metrics[name] == pytest.approx(
            found.outcomes[0].result.metrics[name], abs=1e-9
        )
    with pytest.raises(GeomkitError, match="expected rows of 4 dimensions"):
        closed(large, Centring.fit(x[:, :4], y[:, :4]))


def test_the_curve_of_a_shift() -> None:
    """0 is no shift; 1 brings the centroids together; the loss is that of the closed form."""
    whole = gapped()
    moments = Moments.of(whole.image, whole.text)
    found = shifts(whole, moments, [-0.5, 0.0, 1.0, 1.5], temperature=0.1)
    assert found.distance[0] > found.distance[1] > 0.5 > abs(found.distance[2]) > 0
    assert found.distance[3] < 0
    assert found.loss[1] == pytest.approx(float(contrastive(whole.image, whole.text, 10.0)))
    assert found.n == 200 and found.temperature == 0.1


def test_minds_the_gaps_published_curve() -> None:
    """Distances that its repository prints for 5,000 pairs; 500 of them lie 3% farther apart."""
    path = Path("../shared/data/mind_the_gap_clip.npy")
    if not path.exists():
        pytest.skip("no embeddings of Mind the Gap")
    e = read_embeddings(path)
    deltas = np.array([-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75])
    published = [1.412827, 1.305014, 1.173114, 1.013107, 0.822103, 0.599846, 0.350383, 0.083829]
    moments = Moments.of(e.image, e.text)
    length = float(np.linalg.norm(moments.mean_x - moments.mean_y))
    assert length == pytest.approx(0.851, abs=1e-3)
    found = shifts(e, moments, (deltas / length).tolist())
    np.testing.assert_allclose(found.distance, published, atol=0.04)
    assert min(found.loss) == found.loss[4]  # the loss is least without a shift
    whole = closed(e, fit("translate", moments))
    assert np.linalg.norm(whole.image.mean(0) - whole.text.mean(0)) < 0.1


def test_saved_and_applied_by_every_command(tmp_path: Path, cli: object) -> None:
    path, out = tmp_path / "e.npz", tmp_path / "map.safetensors"
    np.savez(path, image=x, text=y)
    run = cli  # type: ignore[var-annotated]
    done = run("close", path, "--best", "modality_bias", "--keep", "recall@1:0.9", "--out", out)
    assert done.status == 0 and "best by modality_bias" in done.err and out.exists()
    assert len(done.out.splitlines()) == len(INTERVENTIONS) + 4
    again = run("close", path, "--method", "centre", "--out", out)
    assert again.status == 2 and "exists" in again.err
    measured = run("gap", path, "--metrics", "centroid_distance", "--close", out, "--json")
    moved = load(out)
    u, v = moved(unit(x)), moved(unit(y), "text")
    result = json.loads(measured.out)["results"][0]
    assert result["metrics"]["centroid_distance"] == pytest.approx(
        float(np.linalg.norm(u.mean(0) - v.mean(0))), abs=1e-9
    )
    assert result["meta"]["closed_by"] == str(out)
    assert f"closed by {out}" in measured.err
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    named = run("gap", "--image", tmp_path / "x.npy", "--text", tmp_path / "y.npy",
                "--metrics", "centroid_distance", "--close", out, "--json")  # fmt: skip
    assert json.loads(named.out)["results"][0]["metrics"] == result["metrics"]


def test_bad_options_are_one_line(tmp_path: Path, cli: object) -> None:
    path = tmp_path / "e.npz"
    np.savez(path, image=x, text=y)
    run = cli  # type: ignore[var-annotated]
    for words, said in [
        (["--keep", "recall@1:0.1"], "--best"),
        (["--best", "modality_bias", "--keep", "recall@1"], "METRIC:LOSS"),
        (["--out", tmp_path / "m.safetensors"], "one --method, or --best"),
        (["--out", tmp_path / "m.npz", "--method", "centre"], "a .safetensors file"),
        (["--best", "nothing"], "nothing: is not measured"),
        (["--best", "mixed_recall@5"], "add it to --metrics"),
        (["--metrics", "recall@2"], "unknown metric or mean 'recall@2'"),
        (["--method", "centre:shrinkage=1"], "centre takes no options"),
        (["--fit", path], "all 120 images to measure are among those to fit on"),
        (["--close", tmp_path / "m.safetensors"], "--close applies to other commands"),
        (["--seed", "-1"], "expected 0 or more, got -1"),
        (["--fit-only", "--method", "centre", "--out", tmp_path / "m.safetensors", "--json"],
         "--fit-only measures nothing"),
        (["--method", "translate:strength=1e300"], "nothing is left of a row"),
        (["--metrics", "recall@1", "--best", "recall@1", "--method", "remove-dimensions:count=7"],
         "no method brings recall@1 nearer to its ideal"),
        (["--zeroshot", "openmoji"], "applies to models"),
        (["--best", "modality_bias", "--keep", "recall@1:0", "--method",
          "remove-dimensions:count=7"], "no method keeps"),
    ]:  # fmt: skip
        done = run("close", path, *words)
        assert done.status == 2 and said in done.err, (words, done.err)
        assert "Warning" not in done.err
    for words, said in [
        (["--gap", "recall@1", "--against", "recall@1"], "another metric"),
        (["--gap", "gap"], "is a group"),
        (["--seed", "-1"], "0 or more"),
    ]:
        done = run("plot-close", path, *words)
        assert done.status == 2 and said in done.err, (words, done.err)


def test_what_flatters_a_map_is_said(tmp_path: Path, cli: object) -> None:
    """Images on both sides, few pairs, estimates; and later, what a map was fitted on."""
    run = cli  # type: ignore[var-annotated]
    np.savez("twice.npz", image=np.concatenate([x, x]), text=np.concatenate([y, y]))
    few = ("--method", "procrustes", "--metrics", "recall@1")
    done = run("close", "twice.npz", *few, "--out", "m.safetensors")
    assert "of the measured images are among those fitted on too" in done.err
    np.savez("e.npz", image=x, text=y)
    later = run("gap", "e.npz", "--close", "m.safetensors", "--metrics", "alignment")
    assert "fitted on twice.npz, a random half of the images (seed 0): 120 pairs" in later.err
    np.savez("wide.npz", image=np.eye(20)[:10] + 0.1, text=np.eye(20)[:10] + 0.2)
    assert "5 pairs are fewer than the 20 dimensions" in run("close", "wide.npz", *few).err
    done = run("close", "e.npz", *few, "--exact-limit", "10")
    assert "~ estimated from 60 rows against all 60" in done.err and "procrustes   ~" in done.out
    listed = run("close", "e.npz", *few, "--exact-limit", "10", "--json")
    assert json.loads(listed.out)["methods"][0]["estimated"]
    np.savez("three.npz", image=x, text=y, audio=x + y)
    done = run("gap", "three.npz", "--close", "m.safetensors")
    assert done.status == 2 and "more than two modalities" in done.err


def test_rows_of_any_length_and_kind_are_moved_alike() -> None:
    centred = Centring.fit(x, y)
    np.testing.assert_allclose(centred(7 * x), centred(x), atol=1e-12)
    np.testing.assert_allclose(centred(x.tolist()), centred(x), atol=1e-12)
    with pytest.raises(GeomkitError, match="expected Embeddings, got ndarray"):
        close(x, y)  # type: ignore[arg-type]


def test_clouds_without_pairs_have_no_intervention(tmp_path: Path) -> None:
    from geomkit.extraction.load import load_pairs

    Centring.fit(x, y).save(tmp_path / "m.safetensors")
    np.savez(tmp_path / "one.npz", image=x)
    with pytest.raises(GeomkitError, match="needs pairs of rows"):
        load_pairs(tmp_path / "one.npz", close=tmp_path / "m.safetensors")
    assert isinstance(load_pairs(tmp_path / "one.npz")[0][0], Clouds)


def test_a_closed_model_gives_closed_embeddings(tmp_path: Path) -> None:
    """In float64, encoders, extraction and zero-shot give what the intervention gives."""
    checkpoint = fresh()
    checkpoint.model.double()
    data = table(write_table(tmp_path / "good", 12))
    plain = embed(checkpoint, data, precision="fp64", workers=0)
    fitted = Centring.fit(*plain.pairs())
    fitted.save(tmp_path / "m.safetensors")
    after = close_model(checkpoint, tmp_path / "m.safetensors")
    assert after.notes[-1].startswith("closed by ")
    moved = embed(after, data, precision="fp64", workers=0)
    np.testing.assert_allclose(moved.image, fitted.apply(plain.image), atol=1e-12)
    np.testing.assert_allclose(moved.text, fitted.apply(plain.text, "text"), atol=1e-12)
    calm = {**CALM, "precision": "fp64"}
    extract(after, data, tmp_path / "out", **calm)
    stored = read_embeddings(tmp_path / "out")
    np.testing.assert_allclose(stored.image, moved.image, atol=1e-6)
    with pytest.raises(GeomkitError, match="closed_by"):  # another model's shards are not continued
        checkpoint.model.after = None
        extract(checkpoint, data, tmp_path / "out", resume=True, **calm)
    Centring.fit(x, y).save(tmp_path / "eight.safetensors")
    with pytest.raises(GeomkitError, match=r"eight.safetensors.*expected rows of 8 dimensions"):
        close_model(checkpoint, tmp_path / "eight.safetensors")


def test_bf16_does_not_reach_the_intervention(tmp_path: Path) -> None:
    checkpoint = fresh()
    data = table(write_table(tmp_path / "good", 8))
    plain = embed(checkpoint, data, precision="bf16", workers=0)
    fitted = fit("whiten", Moments.of(*plain.pairs()))
    fitted.save(tmp_path / "m.safetensors")
    moved = embed(
        close_model(checkpoint, tmp_path / "m.safetensors"), data, precision="bf16", workers=0
    )
    np.testing.assert_allclose(moved.image, fitted.apply(plain.image), atol=1e-5)


def test_zero_shot_after_an_intervention_is_that_of_the_closed_model(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_table(tmp_path / name, 6)
        (tmp_path / name / "table.csv").unlink()
    checkpoint = fresh()
    classes = load_classes(f"imagefolder:{tmp_path}", preprocess=checkpoint.preprocess, split="all")
    scores = zeroshot_scores(checkpoint, classes, workers=0)
    before = zeroshot(checkpoint, classes, workers=0)
    assert scores(None)["zeroshot_acc1"].mean() == pytest.approx(before.metrics["acc1"])
    rng = np.random.default_rng(0)
    fitted = Centring.fit(*(unit(rng.standard_normal((9, DIM))) for _ in range(2)))
    hits = scores(fitted)["zeroshot_acc1"]
    fitted.save(tmp_path / "m.safetensors")
    after = zeroshot(close_model(checkpoint, tmp_path / "m.safetensors"), classes, workers=0)
    assert hits.mean() == pytest.approx(after.metrics["acc1"])
    assert len(hits) == 12
    found = close(pairs, ["centre"], metrics=["alignment"], scores=lambda i: {"zeroshot": hits})
    assert found.shown == ("alignment", "zeroshot")
    assert found.difference(found.outcomes[0], "zeroshot").value == 0.0


def test_snapshots_of_training_are_not_drawn_for_closed_embeddings(
    cli: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored stages did not go through the intervention: the embeddings are drawn instead."""
    from geomkit import sources

    def stored(source: str) -> None:
        raise AssertionError("the snapshots are read")

    monkeypatch.setattr(sources, "run_of", stored)
    np.savez("e.npz", image=x[:, :3], text=y[:, :3])
    Centring.fit(unit(x[:, :3]), unit(y[:, :3])).save("m.safetensors")
    run = cli  # type: ignore[var-annotated]
    assert run("plot-sphere", "e.npz", "--close", "m.safetensors", "--out", "s.png").status == 0
    assert Path("s.png").exists()
