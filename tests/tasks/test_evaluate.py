"""Zero-shot classification: prompts, scores, data sets, the command; retrieval's parity."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clouds
from task_samples import draw, folders

from geomkit.data.emoji_codes import neutral
from geomkit.data.labelled import caltech101, dtd, load_classes, load_parts
from geomkit.data.labelled import cifar as cifars
from geomkit.data.labelled.prompts import fill, imagenet_templates
from geomkit.embeddings.embeddings import Embeddings
from geomkit.errors import GeomkitError
from geomkit.metrics import gap
from geomkit.models.architectures import model_config
from geomkit.models.checkpoints import Checkpoint
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import build
from geomkit.tasks import class_weights, retrieval_json, zeroshot
from geomkit.tasks.scores import score

SIZE = 32
PLAIN = Preprocess(SIZE)


def tiny(seed: int = 0) -> Checkpoint:
    config = model_config("nano", dim=16)
    torch.manual_seed(seed)
    return Checkpoint(
        build(config).eval(),
        "geomkit",
        "tiny.pt",
        config,
        Preprocess.for_model(config),
        Tokenizer.for_model(config),
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from geomkit.training.config import configure
    from geomkit.training.loop import train

    path = tmp_path_factory.mktemp("model") / "ckpt.pt"
    train(
        configure(dim=3, loss="cua", model="nano", pairs=32, batch_size=16, steps=1, warmup=1), path
    )
    return path


# prompts and the classifier


def test_the_classifier_is_open_clips() -> None:
    from open_clip import build_zero_shot_classifier
    from open_clip.tokenizer import SimpleTokenizer

    loaded = tiny()
    names, templates = ["cat", "grand piano", "sky"], ["a photo of a {}.", "{}", "the toy {}."]
    ours = class_weights(loaded.model, names, templates, loaded.tokenizer, batch_size=4)
    theirs = build_zero_shot_classifier(
        loaded.model.clip, SimpleTokenizer(context_length=32), names, templates
    )
    assert ours.shape == (16, 3)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_one_prompt_is_its_own_average() -> None:
    loaded = tiny()
    weights = class_weights(loaded.model, ["cat"], ["a {c}"], loaded.tokenizer)
    with torch.no_grad():
        row = loaded.model.encode_text(loaded.tokenizer.encode(["a cat"]))
    torch.testing.assert_close(weights[:, 0], row[0], atol=1e-6, rtol=0)


def test_published_prompts_have_their_published_number() -> None:
    published = {module: module.TEMPLATES for module in (cifars, dtd, caltech101)}
    assert [len(templates) for templates in published.values()] == [18, 8, 34]
    assert len(imagenet_templates()) == 80 and fill(imagenet_templates()[0], "cat") == (
        "a bad photo of a cat."
    )
    for templates in published.values():
        assert len(set(templates)) == len(templates) and all(t.count("{}") == 1 for t in templates)


# scores


def test_scores_equal_sklearns_on_untied_data() -> None:
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

    rng = np.random.default_rng(0)
    labels = rng.choice(7, 300, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])
    scores = rng.standard_normal((300, 7))
    scores[np.arange(300), labels] += 1.0
    found = score([(scores[:100], labels[:100]), (scores[100:], labels[100:])], 7)
    guess = scores.argmax(axis=1)
    assert found.metrics["acc1"] == pytest.approx((guess == labels).mean(), abs=1e-12)
    assert found.metrics["acc5"] == pytest.approx(top_k_accuracy_score(labels, scores, k=5))
    assert found.metrics["mean_per_class_recall"] == pytest.approx(
        balanced_accuracy_score(labels, guess), abs=1e-12
    )
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, guess))
    assert found.majority_share == np.bincount(labels).max() / 300


@pytest.mark.parametrize("classes", [2, 5, 12])
def test_equal_scores_are_at_chance(classes: int) -> None:
    labels = np.zeros(50, int)  # a first-come rule would score 1
    found = score([(np.full((50, classes), 0.3), labels)], classes)
    assert found.metrics["acc1"] == pytest.approx(1 / classes)
    assert found.metrics["mean_per_class_recall"] == pytest.approx(found.chance["acc1"])
    if classes >= 5:
        assert found.metrics["acc5"] == pytest.approx(5 / classes) == found.chance["acc5"]
    else:
        assert np.isnan(found.metrics["acc5"])  # as CLIP_benchmark has it
    np.testing.assert_allclose(found.confusion[0], 50 / classes)


def test_errors_are_those_of_repeated_draws() -> None:
    rng = np.random.default_rng(1)
    recall, share = np.array([0.9, 0.5, 0.2]), np.array([0.6, 0.3, 0.1])
    values, errors = [], []
    for _ in range(400):
        labels = rng.choice(3, 500, p=share)
        right = rng.random(500) < recall[labels]
        scores = np.eye(3)[np.where(right, labels, (labels + 1) % 3)]
        found = score([(scores, labels)], 3)
        values.append([found.metrics[k] for k in ("acc1", "mean_per_class_recall")])
        errors.append([found.stderr[k] for k in ("acc1", "mean_per_class_recall")])
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(values, axis=0), rtol=0.1)


def test_errors_of_grouped_images_are_those_of_repeated_draws() -> None:
    # 60 emoji of five tones each, one of each class, and an emoji is easy or hard in all of them.
    rng = np.random.default_rng(2)
    labels, groups = np.tile(np.arange(5), 60), np.repeat(np.arange(60), 5)
    names = ("acc1", "mean_per_class_recall")
    values, errors, alone = [], [], []
    for _ in range(300):
        right = rng.random(300) < np.repeat(rng.random(60), 5)
        scores = np.eye(5)[np.where(right, labels, (labels + 1) % 5)]
        found = score([(scores, labels)], 5, groups)
        values.append([found.metrics[k] for k in names])
        errors.append([found.stderr[k] for k in names])
        alone.append(score([(scores, labels)], 5).stderr["acc1"])
    np.testing.assert_allclose(np.mean(errors, axis=0), np.std(values, axis=0), rtol=0.1)
    assert np.mean(alone) < 0.75 * np.std(values, axis=0)[0]  # as if 300 were independent
    one = score([(scores, labels)], 5, np.arange(300)[::-1])
    assert one.stderr == pytest.approx(score([(scores, labels)], 5).stderr)


def test_accuracys_error_is_binomial() -> None:
    labels = np.repeat([0, 1], 50)
    scores = np.eye(2)[np.where(np.arange(100) < 80, labels, 1 - labels)]
    found = score([(scores, labels)], 2)
    assert found.stderr["acc1"] == pytest.approx(np.sqrt(0.8 * 0.2 / 99))


def test_a_class_without_pictures_is_no_zero() -> None:
    found = score([(np.eye(3)[[0, 1]], np.array([0, 1]))], 3)
    assert found.metrics["mean_per_class_recall"] == 1.0 and np.isnan(found.recall[2])


# data sets


def test_an_image_folder(tmp_path: Path) -> None:
    root = folders(tmp_path / "pictures")
    found = load_classes(f"imagefolder:{root}", preprocess=PLAIN)
    assert found.class_names == ("blue thing", "green thing", "red thing")
    assert found.counts.tolist() == [4, 4, 4] and found.data.split == "all"
    pixels = found.data.pixels()
    assert pixels.shape == (12, SIZE, SIZE, 3)
    strongest = pixels.reshape(12, -1, 3).mean(axis=1).argmax(axis=1)
    np.testing.assert_array_equal(strongest, 2 - found.labels)


def test_an_image_folder_with_splits_gives_its_test_pictures(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        folders(tmp_path / split, count)
    spec = f"imagefolder:{tmp_path}"
    assert load_classes(spec, preprocess=PLAIN).data.split == "test"
    assert len(load_classes(spec, preprocess=PLAIN, split="train+val")) == 12
    train, test = load_parts(spec, preprocess=PLAIN)
    assert (train.data.split, len(train), len(test)) == ("train+val", 12, 6)
    assert not set(train.data.ids) & set(test.data.ids)


@pytest.mark.parametrize(
    ("inside", "split", "count"),
    [
        (("training", "validation"), "val", 6),
        (("val",), "val", 6),
        (("val", "test"), "test", 6),
        (("train",), "train", 6),
    ],
)
def test_which_folders_are_splits(
    tmp_path: Path, inside: tuple[str, ...], split: str, count: int
) -> None:
    for folder in inside:
        folders(tmp_path / folder, 2)
    found = load_classes(f"imagefolder:{tmp_path}", preprocess=PLAIN)
    assert (found.data.split, len(found)) == (split, count)
    assert len(found.class_names) == 3 and len(found.data.pixels()) == count


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    draw(tmp_path / "test" / "1.png", (9, 9, 9))
    draw(tmp_path / "exam" / "1.png", (9, 9, 9))
    found = load_classes(f"imagefolder:{tmp_path}", preprocess=PLAIN)
    assert found.class_names == ("exam", "test") and found.data.split == "all"


def test_a_class_missing_from_the_test_folder_keeps_its_number(tmp_path: Path) -> None:
    folders(tmp_path / "train", 2)
    folders(tmp_path / "val", 2, only=("red_thing",))
    train, test = load_parts(f"imagefolder:{tmp_path}", preprocess=PLAIN)
    assert train.class_names == test.class_names and test.counts.tolist() == [0, 0, 2]


def cifar(root: Path, monkeypatch: pytest.MonkeyPatch, name: str = "CIFAR10") -> np.ndarray:
    """A CIFAR of ten pictures a file; the sums that its reader checks are those of these."""
    import hashlib

    from torchvision import datasets

    kind = getattr(datasets, name)
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    key = "labels" if name == "CIFAR10" else "fine_labels"
    words = [f"kind_{i:03d}" for i in range(10 if name == "CIFAR10" else 100)]

    def write(file: str, content: dict) -> str:
        data = pickle.dumps(content)
        (folder / file).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    pictures = np.empty(0)

    def batch(file: str) -> list[str]:
        nonlocal pictures
        pictures = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
        return [file, write(file, {"data": pictures, key: list(range(10))})]

    for part in ("train_list", "test_list"):
        monkeypatch.setattr(kind, part, [batch(file) for file, _ in getattr(kind, part)])
    meta = {**kind.meta, "md5": write(kind.meta["filename"], {kind.meta["key"]: words})}
    monkeypatch.setattr(kind, "meta", meta)
    return pictures.reshape(10, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.mark.parametrize(("name", "classes"), [("CIFAR10", 10), ("CIFAR100", 100)])
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, classes: int) -> None:
    pixels = cifar(tmp_path, monkeypatch, name)
    spec = f"{name.lower()}:{tmp_path}"
    found = load_classes(spec, preprocess=PLAIN)
    assert (len(found), len(found.class_names), found.data.split) == (10, classes, "test")
    assert found.class_names[1] == "kind 001" and found.labels.tolist() == list(range(10))
    np.testing.assert_array_equal(found.data.pixels(), pixels)  # 32 px: nothing to resize
    assert found.dataset == name.lower() and len(found.templates) == 18
    assert load_classes(spec, preprocess=Preprocess(48)).data.pixels().shape[1] == 48
    next((tmp_path).rglob("*test*")).write_bytes(b"damaged")
    with pytest.raises(GeomkitError, match="incomplete or damaged"):
        load_classes(spec, preprocess=PLAIN)


def test_dtd(tmp_path: Path) -> None:
    base = tmp_path / "dtd" / "dtd"
    (base / "labels").mkdir(parents=True)
    for split, numbers in (("train", (1, 2)), ("val", (3,)), ("test", (4, 5, 6))):
        lines = []
        for texture in ("banded", "dotted"):
            for number in numbers:
                name = f"{texture}/{texture}_{number:04d}.jpg"
                draw(base / "images" / name, (90, 90, 90), number)
                lines.append(name)
        (base / "labels" / f"{split}1.txt").write_text("\n".join(lines) + "\n")
    found = load_classes(f"dtd:{tmp_path}", preprocess=PLAIN)
    assert found.class_names == ("banded", "dotted") and found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.data.pixels().shape == (6, SIZE, SIZE, 3)
    train, test = load_parts(f"dtd:{tmp_path}", preprocess=PLAIN)
    assert (len(train), len(test)) == (6, 6)


def test_caltech101(tmp_path: Path) -> None:
    base = tmp_path / "caltech101" / "101_ObjectCategories"
    for name in ("BACKGROUND_Google", "Faces_easy", "sea_horse"):
        for number in (1, 2, 3, 4, 5):
            draw(base / name / f"image_{number:04d}.jpg", (60, 60, 60), number)
    found = load_classes(f"caltech101:{tmp_path}", preprocess=PLAIN)
    assert found.class_names == ("centered face", "sea horse")
    assert found.counts.tolist() == [5, 5] and found.data.pixels().shape[0] == 10
    train, test = load_parts(f"caltech101:{tmp_path}", preprocess=PLAIN)
    assert train.counts.tolist() == [4, 4] and test.counts.tolist() == [1, 1]


def test_imagenet(tmp_path: Path) -> None:
    from open_clip import IMAGENET_CLASSNAMES

    draw(tmp_path / "one.JPEG", (10, 20, 30))
    picture = (tmp_path / "one.JPEG").read_bytes()
    for number in range(1000):
        folder = tmp_path / "val" / f"n{number:08d}"
        folder.mkdir(parents=True)
        (folder / "a.JPEG").write_bytes(picture)
    found = load_classes(f"imagenet:{tmp_path}", preprocess=PLAIN)
    assert (found.dataset, found.class_names) == ("imagenet1k", tuple(IMAGENET_CLASSNAMES))
    assert found.labels.tolist() == list(range(1000)) and len(found.templates) == 80
    (tmp_path / "val" / "n00000999" / "a.JPEG").unlink()
    (tmp_path / "val" / "n00000999").rmdir()
    with pytest.raises(GeomkitError, match="images in 999 folders"):
        load_classes(f"imagenet:{tmp_path}", preprocess=PLAIN)


def test_openmojis_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    skin = load_classes("openmoji,attribute=skin_tone", preprocess=PLAIN)
    for row in range(0, len(skin), 7):
        tone = f"{0x1F3FB + skin.labels[row]:X}"
        assert tone in skin.data.ids[row].split("-")
    assert len(set(skin.counts)) == 1 and skin.data.split == "val"
    gender = load_classes("openmoji,attribute=gender", preprocess=PLAIN)
    assert gender.class_names == ("man", "woman") and gender.counts.min() > 5
    from geomkit.data import load_data

    val = load_data("openmoji", split="val")
    names, spoken = dict(zip(val.ids, val.names, strict=True)), 0
    for name, label in zip(gender.data.ids, gender.labels, strict=True):
        said = {"man", "woman"} & set(names[name].replace("men", "man").split())
        assert said <= {gender.class_names[label]}, names[name]
        spoken += len(said)
    assert spoken > 0.8 * len(gender)
    flag = load_classes("openmoji,attribute=flag", preprocess=PLAIN, split="all")
    assert flag.counts[1] > 200 and flag.counts[0] > flag.counts[1]
    keycap = load_classes("openmoji,attribute=keycap", preprocess=PLAIN, split="all")
    assert keycap.counts[1] == 12
    # Errors are over emoji: five tones, and men and women, of one emoji are one group.
    codes = np.array([neutral(code) for code in skin.data.ids])
    assert len(set(zip(codes, skin.groups, strict=True))) == len(set(codes)) == 63
    monkeypatch.setattr("geomkit.data.openmoji.SIZES", (32, 32))  # larger is not drawn
    large = load_classes("openmoji,attribute=skin_tone", preprocess=Preprocess(48))
    assert large.data.pixels([0]).shape == (1, 48, 48, 3)


def test_unicodes_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    group = load_classes("openmoji,attribute=group", preprocess=PLAIN)
    assert len(group.class_names) == 9 and group.counts.min() >= 10
    assert group.class_names[2] == "animals and nature" and not group.data.left_out
    spec = "openmoji,attribute=subgroup,skin_tones=true"
    whole = load_classes(spec, preprocess=PLAIN, split="all")
    assert len(whole) > 3700 and whole.counts.min() >= 1 and len(whole.class_names) == 98
    said = {c: whole.class_names[k] for c, k in zip(whole.data.ids, whole.labels, strict=True)}
    assert (said["1F415"], said["1F44B-1F3FF"], said["2764-FE0F"]) == (
        "mammal", "open hand", "heart",
    )  # fmt: skip
    # An emoji that Unicode's table lacks is left out, and that is said.
    from geomkit.data.labelled import attributes

    real = attributes.group_of
    monkeypatch.setattr(attributes, "group_of", lambda c: None if c == "1F415" else real(c))
    fewer = load_classes(spec, preprocess=PLAIN, split="all")
    assert len(fewer) == len(whole) - 1 and fewer.data.given == len(whole)
    assert str(fewer.data.left_out[0]) == "1 emoji in no group of Unicode 17.0 (1F415)"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("imagenett:x", "did you mean 'imagenet'"),
        ("imagefolder", "write imagefolder:DIR"),
        ("imagefolder:nowhere", "no such folder"),
        ("cifar10:nowhere", "no such folder"),
        ("cifar10:.", "cifar-10-batches-py"),
        ("cifar100:.", "cifar-100-python"),
        ("dtd:.", "with the folders images and labels"),
        ("caltech101:.", "BACKGROUND_Google"),
        ("imagenet:.", "named by WordNet id"),
        ("openmoji", "attribute=NAME (skin_tone, gender, flag, keycap, group, subgroup)"),
        ("openmoji,attribute=skin", "did you mean 'skin_tone'"),
        ("openmoji,atribute=skin_tone", "did you mean 'attribute'"),
        ("openmoji,attribute=skin_tone,skin_tones=false", "needs the images with skin tones"),
        ("openmoji,attribute=flag,seed=x", "expected a whole number"),
    ],
)
def test_a_spec_that_cannot_be_is_one_line(
    spec: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GeomkitError) as error:
        load_classes(spec, preprocess=PLAIN)
    assert says in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())  # nothing made or fetched


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("one\ntwo\n", "expected 3 names"),
        ("one\ntwo\ntwo\n", "appears twice"),
        ("", "found none"),
        ('["one", 2]', "expected a JSON list"),
        ('["one", ', "not JSON"),
    ],
)
def test_class_names_that_do_not_fit(tmp_path: Path, content: str, says: str) -> None:
    root = folders(tmp_path / "pictures")
    (tmp_path / "names.txt").write_text(content)
    with pytest.raises(GeomkitError, match=says):
        load_classes(f"imagefolder:{root}", preprocess=PLAIN, classnames=tmp_path / "names.txt")


def test_names_and_prompts_from_files(tmp_path: Path) -> None:
    root = folders(tmp_path / "pictures")
    (tmp_path / "names.json").write_text('["b", "g", "r"]')
    (tmp_path / "prompts.txt").write_text("a {c} {braces}\n\n{}\n")
    found = load_classes(
        f"imagefolder:{root}",
        preprocess=PLAIN,
        classnames=tmp_path / "names.json",
        templates=tmp_path / "prompts.txt",
    )
    assert found.class_names == ("b", "g", "r") and found.data.names[0] == "b"
    assert [fill(t, "x") for t in found.templates] == ["a x {braces}", "x"]
    (tmp_path / "prompts.txt").write_text("a photo\n")
    with pytest.raises(GeomkitError, match=r"has no \{\} or \{c\}"):
        load_classes(f"imagefolder:{root}", preprocess=PLAIN, templates=tmp_path / "prompts.txt")


# zeroshot()


def few(tmp_path: Path) -> Path:
    """Two prompts are as good as eighty, and faster."""
    (path := tmp_path / "few.txt").write_text("a photo of a {}.\na {}\n")
    return path


def test_zeroshot_is_the_nearest_classifier_by_hand(tmp_path: Path) -> None:
    loaded = tiny()
    classes = load_classes(
        f"imagefolder:{folders(tmp_path / 'p')}",
        preprocess=loaded.preprocess,
        templates=few(tmp_path),
    )
    found = zeroshot(loaded, classes, batch_size=5, workers=0)
    weights = class_weights(loaded.model, classes.class_names, classes.templates, loaded.tokenizer)

    with torch.no_grad():
        rows = loaded.model.encode_image(loaded.preprocess.to_pixels(classes.data.pixels()))
    guess = (rows @ weights).argmax(dim=1).numpy()
    assert found.metrics["acc1"] == pytest.approx((guess == classes.labels).mean())
    assert found.scored.n == 12 and found.scored.chance["acc1"] == pytest.approx(1 / 3)


def test_bad_pictures_are_counted_or_refused(tmp_path: Path) -> None:
    root = folders(tmp_path / "p")
    (root / "red_thing" / "1.png").write_bytes(b"no picture")
    loaded = tiny()
    spec = f"imagefolder:{root}"
    with pytest.raises(GeomkitError, match="1 of 12 images"):
        classes = load_classes(spec, preprocess=loaded.preprocess, templates=few(tmp_path))
        zeroshot(loaded, classes, workers=0)
    classes = load_classes(spec, preprocess=loaded.preprocess, templates=few(tmp_path), max_bad=0.2)
    found = zeroshot(loaded, classes, workers=0)
    assert found.scored.counts.tolist() == [4, 4, 3]
    assert [b.id for b in found.bad] == ["red_thing/1.png"]


@pytest.mark.parametrize("task", ["zeroshot", "probe"])
def test_what_is_left_out_and_fast_decoding_are_fields(
    cli, checkpoint: Path, tmp_path: Path, task: str
) -> None:
    for split in ("train", "val"):
        folders(tmp_path / "p" / split, 2)
    draw(tmp_path / "p" / "extra" / "red_thing" / "9.jpg", (200, 0, 0))
    words = (task, checkpoint, "--data", f"imagefolder:{tmp_path / 'p'}", "--workers", 0, "--json")
    own = ("--C", 1) if task == "probe" else ("--templates", few(tmp_path))
    outcome = cli(*words, *own, "--fast-decode")
    assert outcome.status == 0, outcome.err
    meta = json.loads(outcome.out)["meta"]
    assert (meta["given"], meta["fast_decode"]) == (7, True)
    (left_out,) = meta["left_out"]
    assert (left_out["count"], left_out["first"]) == (1, ["extra/red_thing/9.jpg"])
    assert "not used: 1 images outside of train, val (extra/red_thing/9.jpg)" in outcome.err
    with pytest.raises(GeomkitError, match="no JPEG files"):
        load_classes("openmoji,attribute=flag", preprocess=PLAIN, fast_decode=True)


def test_classes_of_one_name_are_said(tmp_path: Path) -> None:
    for folder in ("big_cat", "big-cat", "dog"):
        draw(tmp_path / folder / "1.png", (9, 9, 9))
    note = load_classes(f"imagefolder:{tmp_path}", preprocess=PLAIN).data.note
    assert note == "2 classes have the name 'big cat', and cannot be told apart by it"


def test_workers_change_nothing(tmp_path: Path) -> None:
    loaded = tiny()
    root = folders(tmp_path / "p")
    (root / "red_thing" / "1.png").write_bytes(b"no picture")
    classes = load_classes(
        f"imagefolder:{root}",
        preprocess=loaded.preprocess,
        templates=few(tmp_path),
        max_bad=1.0,
    )
    here, there = (zeroshot(loaded, classes, batch_size=4, workers=w) for w in (0, 2))
    assert here.to_json(detail=True) == there.to_json(detail=True)


# the command


def test_the_command_prints_clip_benchmarks_json(cli, checkpoint: Path, tmp_path: Path) -> None:
    outcome = cli(
        "zeroshot",
        checkpoint,
        "--data",
        "openmoji,attribute=skin_tone",
        "--json",
        "--out",
        "r.json",
    )
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)
    assert json.loads((tmp_path / "r.json").read_text()) == found
    theirs = ["dataset", "model", "pretrained", "task", "metrics", "language"]
    assert list(found)[:6] == theirs and found["task"] == "zeroshot_classification"
    assert list(found["metrics"]) == ["acc1", "acc5", "mean_per_class_recall"]
    assert found["metrics"]["acc5"] == 1.0 and found["chance"]["acc1"] == pytest.approx(0.2)
    assert found["model"] == "nano" and found["n"] == 350 and found["bad"] == []
    assert "OpenMoji" in outcome.err


def test_the_command_shows_several_models_side_by_side(cli, checkpoint: Path) -> None:
    words = ("zeroshot", checkpoint, checkpoint, "--data", "openmoji,attribute=gender")
    outcome = cli(*words, "--per-class")
    assert outcome.status == 0, outcome.err
    assert outcome.out.count("ckpt.pt val") == 2
    assert "recall: woman" in outcome.out and "majority" in outcome.out
    assert "acc5 is undefined: fewer than five classes" in outcome.err
    found = json.loads(cli(*words, "--json").out)
    assert found["results"][0] == found["results"][1]
    assert found["results"][0]["metrics"]["acc5"] is None


def test_models_of_open_clip_are_named_as_clip_benchmark_does(cli, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(build(model_config("nano")).clip.state_dict(), tmp_path / "weights.pt")
    root = folders(tmp_path / "p", 1)
    source = f"open_clip:nano/{tmp_path / 'weights.pt'}"
    words = ("--data", f"imagefolder:{root}", "--templates", few(tmp_path), "--workers", 0)
    outcome = cli("zeroshot", source, *words, "--json", "--precision", "fp64")
    assert outcome.status == 0, outcome.err
    found = json.loads(outcome.out)
    assert (found["model"], found["pretrained"]) == ("nano", str(tmp_path / "weights.pt"))
    assert found["source"] == source and found["meta"]["precision"] == "fp64"


def test_the_command_refuses_in_one_line(refused, checkpoint: Path, tmp_path: Path) -> None:
    data = ("--data", "openmoji,attribute=skin_tone")
    refused("zeroshot", checkpoint, says=("--data",))
    refused("zeroshot", "nowhere.pt", *data, says=("nowhere.pt", "no such file"))
    refused("zeroshot", checkpoint, "--data", "openmoji", says=("attribute",))
    refused("zeroshot", checkpoint, *data, "--split", "tset", says=("split", "val"))
    refused("zeroshot", checkpoint, *data, "--classnames", "no.txt", says=("no such file",))
    (tmp_path / "r.json").write_text("kept")
    refused("zeroshot", checkpoint, *data, "--out", "r.json", says=("--overwrite",))
    assert (tmp_path / "r.json").read_text() == "kept"


# retrieval as CLIP_benchmark counts it


def any_hit_recall(scores: torch.Tensor, positive: torch.Tensor, k: int) -> float:
    """Share of rows with at least one positive among their k best, a few rows at a time."""
    hits = []
    for start in range(0, len(scores), 7):
        part, own = scores[start : start + 7], positive[start : start + 7]
        best = part.topk(k, dim=1).indices
        share = own.gather(1, best).sum(dim=1) / own.sum(dim=1)  # recall proper
        hits.append(share > 0)
    return torch.cat(hits).double().mean().item()


@pytest.mark.parametrize("captions", [1, 3])
def test_retrieval_is_clip_benchmarks(captions: int) -> None:
    rng = np.random.default_rng(3)
    x, y = clouds(60, 6, shift=0.2)
    owner = np.repeat(np.arange(60), rng.integers(1, captions + 1, 60))
    text = y[owner] + 0.6 * rng.standard_normal((len(owner), 6))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    result = gap(Embeddings.of(x, text, owner), metrics=["retrieval"])
    scores = torch.from_numpy(text @ x.T)
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(owner)), torch.from_numpy(owner)] = True
    found = retrieval_json(result, dataset="pairs")
    assert found["task"] == "zeroshot_retrieval" and found["dataset"] == "pairs"
    for k in (1, 3, 5, 10):
        expected = {
            f"image_retrieval_recall@{k}": any_hit_recall(scores, positive, k),
            f"text_retrieval_recall@{k}": any_hit_recall(scores.T, positive.T, k),
        }
        for name, value in expected.items():
            assert 0 < value < 1
            assert found["metrics"][name] == pytest.approx(value, abs=1e-12), name
