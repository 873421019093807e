"""Multimodal arithmetic: held-out variants, queries, answers with ties, the command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import unit
from task_samples import few_images, nano

from geomkit.data import load_data
from geomkit.data.emoji_codes import neutral
from geomkit.data.queries import arithmetic_data, arithmetic_spec, same_held_out
from geomkit.data.relations import MEAN, RELATIONS, held_out_relations
from geomkit.errors import GeomkitError
from geomkit.tasks import queries
from geomkit.tasks.arithmetic import ELSEWHERE, arithmetic
from geomkit.tasks.arithmetic import _mean_part as mean_part
from geomkit.tasks.queries import Task, answer, moved, nearest, tasks_of

SPEC = "openmoji,skin_tones=true,hold_out=variants"
HAND = [f"1F44B-1F3F{tone}" for tone in "BCDEF"]
COOKS = ["1F468-1F3FB-200D-1F373", "1F469-1F3FB-200D-1F373", "1F9D1-1F3FB-200D-1F373"]
RUNNERS = ["1F3C3-200D-2642-FE0F", "1F3C3-200D-2640-FE0F"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    few_images(monkeypatch)


# the pictures held out


def test_variants_are_held_out_one_by_one() -> None:
    train, val = load_data(SPEC, split="train"), load_data(SPEC, split="val")
    whole = load_data(SPEC, split="all")
    assert sorted(train.ids + val.ids) == sorted(whole.ids)
    families = [neutral(code) for code in whole.ids]
    variants = [c for c, f in zip(whole.ids, families, strict=True) if c.replace("-FE0F", "") != f]
    assert set(val.ids) < set(variants) and 0.15 < len(val) / len(variants) < 0.25
    # whatever is held out, some other picture of the emoji is known
    assert {neutral(code) for code in val.ids} <= {neutral(code) for code in train.ids}
    assert set(load_data(f"{SPEC},seed=1", split="val").ids) != set(val.ids)
    plain = load_data("openmoji,hold_out=variants", split="val")
    assert 20 < len(plain) < 100  # men and women without a skin tone
    assert [load_data(split="val").ids] == [load_data("openmoji,hold_out=bases", split="val").ids]


def test_neutral_codes_know_people_from_signs() -> None:
    assert len({neutral(code) for code in [*COOKS, "1F9D1-200D-1F373"]}) == 1
    assert len({neutral(code) for code in [*RUNNERS, "1F3C3"]}) == 1
    assert neutral("2640-FE0F") != neutral("2642-FE0F")  # the signs themselves
    assert neutral("1F483") == neutral("1F57A-1F3FB") != neutral("1F3C3")


def test_unknown_ways_to_hold_out_are_refused(refused) -> None:
    refused(
        *("data", "openmoji,hold_out=variant"),
        says=("way to hold out", "did you mean 'variants'", "bases"),
    )


# queries


def test_queries_pair_what_differs_in_one_attribute() -> None:
    ids = [*HAND, *COOKS, *RUNNERS, "1F600"]
    tone, gender = tasks_of(ids)
    assert (tone.attribute, gender.attribute) == ("skin_tone", "gender")
    assert len(tone) == 5 * 4
    assert set(tone.source) == set(tone.target) == set(range(5))
    pairs = {(ids[s], ids[t]) for s, t in zip(gender.source, gender.target, strict=True)}
    assert pairs == {(a, b) for two in (COOKS[:2], RUNNERS) for a in two for b in two if a != b}
    assert tone.context[-1] == tone.value[-1] == -1
    held_out = np.isin(ids, HAND[:1])
    (tone,) = tasks_of(ids[:5], sources=~held_out[:5], targets=held_out[:5])
    assert tone.target.tolist() == [0] * 4 and tone.source.tolist() == [1, 2, 3, 4]
    assert tasks_of(["1F600", "1F415"]) == []


@pytest.mark.parametrize(
    ("relation", "one", "other", "words"),
    [
        ("hair", "1F468-1F3FB-200D-1F9B0", "1F468-1F3FB-200D-1F9B3", ("red hair", "white hair")),
        ("age", "1F467-1F3FF", "1F475-1F3FF", ("child", "older person")),
        ("role", "1F9D1-200D-1F373", "1F9D1-200D-2695-FE0F", ("cook", "health worker")),
        ("facing", "1F3C3-200D-2640-FE0F", "1F3C3-200D-2640-FE0F-200D-27A1-FE0F",
         ("facing left", "facing right")),
        ("direction", "1F446-1F3FC", "1F449-1F3FC", ("up", "right")),
        ("colour", "2764-FE0F", "1F5A4", ("red", "black")),
        ("hour", "1F550", "1F55B", ("one", "twelve")),
    ],
)  # fmt: skip
def test_relations_by_code_points(relation: str, one: str, other: str, words) -> None:
    (task,) = tasks_of([one, other, "1F600"])
    assert task.attribute == relation and (len(task), task.context[-1]) == (2, -1)
    assert tuple(task.values[k] for k in task.value[:2]) == words


def test_what_only_looks_like_a_relation() -> None:
    # A sheaf of rice and a pan are roles only of people; a heart on fire has no other colour; one
    # skin tone, and one colour of book, stand for no pair.
    assert tasks_of(["1F33E", "1F373", "2764-FE0F-200D-1F525", "1F499", "1F4D7", "1F535"]) == []
    assert tasks_of(["1F446-1F3FC", "1F449-1F3FD"]) == []  # differ in two attributes
    assert tasks_of(["1F468-1F3FB", "1F467-1F3FB"]) == []  # a man and a girl


def test_relations_hold_out_single_images() -> None:
    spec = "openmoji,skin_tones=true,hold_out=relations"
    assert arithmetic_spec("openmoji,hold_out=relations").endswith("relations,skin_tones=true")
    whole, val = load_data(spec, split="all"), load_data(spec, split="val")
    held_out = held_out_relations(whole.ids, 0)
    assert [c for c, out in zip(whole.ids, held_out, strict=True) if out] == list(val.ids)
    tasks = tasks_of(whole.ids, sources=~held_out, targets=held_out)
    assert [task.attribute for task in tasks] == list(RELATIONS)
    assert min(map(len, tasks)) >= 20
    names = dict(zip(whole.ids, whole.names, strict=True))
    for task in tasks:
        every = task.context >= 0
        for column in (task.context, task.value):  # what differs, and its words, are known
            assert set(column[every & held_out]) <= set(column[every & ~held_out])
        if task.attribute in ("hair", "role", "direction", "colour", "hour"):
            for s, t in zip(task.source, task.target, strict=True):
                here, there = task.values[task.value[s]], task.values[task.value[t]]
                one, other = names[whole.ids[s]], names[whole.ids[t]]
                one, other = one.replace(here, "*"), other.replace(there, "*")
                assert one.replace("large square", "square") == other.replace(
                    "large square", "square"
                )


def test_the_mean_over_relations_and_its_error() -> None:
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(300):
        # 40 emoji; both relations ask about each, and an emoji is easy or hard in both.
        level = rng.random(40)
        groups = [np.repeat(np.arange(40), 6), np.arange(40)]
        credit = [(rng.random(len(g)) < level[g]).astype(float) for g in groups]
        part = mean_part(credit, groups)
        assert part.value == pytest.approx((credit[0].mean() + credit[1].mean()) / 2)
        values.append(part.value)
        errors.append(part.stderr)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)


def test_couples_of_two_tones_and_families_are_no_queries() -> None:
    couple = "1F9D1-1F3FB-200D-1F91D-200D-1F9D1-1F3F"
    assert tasks_of([couple + "C", couple + "D"]) == []
    assert tasks_of(["1F468-200D-1F468-200D-1F466", "1F469-200D-1F469-200D-1F466"]) == []


def test_openmojis_queries_have_exact_answers() -> None:
    data, held_out = arithmetic_data(arithmetic_spec("openmoji"), nano().preprocess)
    tasks = tasks_of(data.ids, sources=~held_out, targets=held_out)
    names = np.array(data.names)
    for task in tasks[:2]:  # skin tones and genders
        assert len(task) > 80 and not held_out[task.source].any() and held_out[task.target].all()
        for s, t in zip(task.source[:200], task.target[:200], strict=True):
            here, there = task.values[task.value[s]], task.values[task.value[t]]
            assert here != there and neutral(data.ids[s]) == neutral(data.ids[t])
            if "merm" not in names[s]:  # the one pair whose names do not say man and woman
                swapped = re.sub(rf"\b{here}\b", there, names[s])
                if swapped == names[s]:  # two people, in the plural
                    here, there = here.replace("man", "men"), there.replace("man", "men")
                    swapped = re.sub(rf"\b{here}\b", there, names[s])
                assert swapped == names[t]


# answers


def space() -> tuple[np.ndarray, Task, np.ndarray]:
    """Four emoji in five tones: emoji and tone in coordinates of their own; words exact."""
    emoji, tone = np.divmod(np.arange(20), 5)
    image = np.zeros((20, 9))
    image[np.arange(20), emoji] = image[np.arange(20), 4 + tone] = 1.0
    pairs = [(s, t) for s in range(20) for t in range(20) if emoji[s] == emoji[t] and s != t]
    source, target = np.array(pairs).T
    words = np.eye(9)[4:] / np.sqrt(2.0)
    task = Task("skin_tone", tuple("abcde"), emoji, tone, source, target)
    return unit(image), task, words[tone[target]] - words[tone[source]]


@pytest.mark.parametrize("block", [7, 1024])
def test_a_space_that_adds_up_is_solved_exactly(monkeypatch, block: int) -> None:
    monkeypatch.setattr(queries, "_BLOCK", block)
    image, task, difference = space()
    right = answer(image, task, difference)
    assert right.credit.tolist() == [1.0] * 80 and (right.margin > 0).all()
    assert (right.retrieved == task.target).all()
    np.testing.assert_allclose(right.found.sum(axis=1), 1.0)
    np.testing.assert_array_equal(right.found.argmax(axis=1), task.value[task.target])
    # Without words the four other tones are level with the three emoji of the same tone.
    still = answer(image, task, difference, strength=0.0)
    np.testing.assert_allclose(still.credit, 1 / 7)
    np.testing.assert_allclose(still.found[:, -1], 3 / 7)
    # Words that say the contrary lead away from the target.
    assert answer(image, task, -difference).credit.max() == 0.0


def test_a_collapsed_model_is_at_chance() -> None:
    image, task, difference = space()
    level = answer(np.tile(image[:1], (20, 1)), task, 0 * difference)
    np.testing.assert_allclose(level.credit, 1 / 19)
    np.testing.assert_allclose(level.margin, 0.0, atol=1e-12)


def test_the_source_is_no_answer_and_queries_are_unit_rows() -> None:
    image = unit(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
    query = moved(image, np.array([0, 0]), np.array([[0.0, 2.0], [0.0, 0.0]]), 0.5)
    np.testing.assert_allclose(np.linalg.norm(query, axis=1), 1.0)
    ((_, scores, shares),) = nearest(query, image, np.array([0, 0]))
    assert np.isneginf(scores[:, 0]).all() and shares.tolist() == [[0, 1, 0], [0, 1, 0]]
    # Words that annihilate a picture leave no direction: everything is level.
    nothing = moved(image, np.array([0]), -image[:1], 1.0)
    ((_, _, shares),) = nearest(nothing, image, np.array([0]))
    assert shares.tolist() == [[0.0, 0.5, 0.5]]


def test_further_captions_change_no_name(few) -> None:
    one, all_ = (
        arithmetic(nano(), f"openmoji,captions={n}", differences=("names",))[0] for n in (1, 5)
    )
    assert one.metrics == all_.metrics and one.per_value == all_.per_value


def test_results_agree_with_their_parts(few) -> None:
    results = arithmetic(nano(), strengths=(0.0, 1.0), differences=("words", "names"))
    assert [(r.difference, r.strength) for r in results] == [
        ("words", 0.0), ("words", 1.0), ("names", 0.0), ("names", 1.0),
    ]  # fmt: skip
    assert results[0].metrics == results[2].metrics  # λ = 0 knows no words
    for r in results:
        own = [name for name in r.counts if name.startswith("acc1_")]
        assert {"acc1_skin_tone", "acc1_gender"} <= set(own)
        assert r.counts["acc1"] == sum(r.counts[name] for name in own) and 200 < r.gallery < 450
        whole = sum(r.counts[name] * r.metrics[name] for name in own) / r.counts["acc1"]
        assert r.metrics["acc1"] == pytest.approx(whole)
        assert r.metrics[MEAN] == pytest.approx(np.mean([r.metrics[name] for name in own]))
        assert sum(p.n for p in r.per_value.values()) == r.counts["acc1"]
        for name, part in r.per_value.items():
            attribute, _, value = name.partition(": ")
            found = r.taken_for[attribute][value]
            assert found[value] == pytest.approx(part.value)
            assert sum(found.values()) == pytest.approx(1.0) and ELSEWHERE in found
        assert 0 < r.stderr["acc1"] < 0.1 and 0 < r.meta["difference_norm"] < 2
        for example in r.examples:
            assert (example.margin > 0) == (example.retrieved == example.wanted)


def test_options_that_make_no_sense_are_refused() -> None:
    for spec, says in (
        ("openmoji,n=64", "all images"),
        ("openmoji,skin_tones=false", "all images"),
        ("openmoji,hold_out=bases", "give hold_out=variants or hold_out=relations"),
        ("coco:/x", "known: openmoji, simat"),
    ):
        with pytest.raises(GeomkitError, match=says):
            arithmetic_spec(spec)
    with pytest.raises(GeomkitError, match="did you mean 'val'"):
        arithmetic(nano(), split="vall")
    with pytest.raises(GeomkitError, match="did you mean 'words'"):
        arithmetic(nano(), differences=("word",))


# the command


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from geomkit.training.config import configure
    from geomkit.training.loop import train

    path = tmp_path_factory.mktemp("model") / "ckpt.pt"
    options = {"model": "nano", "batch_size": 16, "steps": 1, "warmup": 1, "pairs": 32}
    train(configure(dim=8, loss="cua", recipe="standard", data=SPEC, **options), path)
    return path


def test_the_command_prints_what_the_library_finds(few, cli, checkpoint: Path) -> None:
    from geomkit.sources import open_source

    lambdas = ("--lambda", 0, "--lambda", 1)
    outcome = cli("arithmetic", checkpoint, *lambdas, "--json", "--out", "found.json")
    assert outcome.status == 0, outcome.err
    whole = json.loads(outcome.out)
    assert json.loads(Path("found.json").read_text()) == whole
    found = arithmetic(open_source(checkpoint), strengths=(0.0, 1.0))
    assert whole["results"] == json.loads(json.dumps([r.to_json() for r in found]))
    assert "OpenMoji" in outcome.err and "images except its own" in outcome.err
    assert "may hold out other" not in outcome.err
    table = cli("arithmetic", checkpoint, "--per-value", "--split", "all")
    assert table.status == 0 and "to skin_tone: dark skin tone" in table.out
    assert "chance" in table.out and "λ=1" in table.out


def test_a_model_that_knows_the_pictures_is_told_of(few, cli, checkpoint: Path) -> None:
    assert "may hold out other" in cli("arithmetic", checkpoint, "--data", "openmoji,seed=3").err
    assert same_held_out(SPEC, "openmoji,hold_out=variants,skin_tones=yes,captions=3")
    assert not same_held_out("coco:/x", SPEC) and not same_held_out(SPEC, "openmoji")


def test_the_commands_refusals(refused, checkpoint: Path) -> None:
    refused("arithmetic", checkpoint, "--data", "coco:/x", says=("known: openmoji, simat",))
    refused("arithmetic", checkpoint, "--data", "simat", says=("write simat:ROOT",))
    refused("arithmetic", checkpoint, "--split", "dev", says=("unknown split 'dev'", "val"))
    refused("arithmetic", checkpoint, "--data", "simat:/none", says=("no SIMAT here", "oscar"))
    refused(
        *("arithmetic", checkpoint, "--data", "simat:/none", "--difference", "names"),
        says=("--difference",),
    )
