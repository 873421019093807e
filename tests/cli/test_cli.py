"""The command line: what it prints is what the library returns, and every refusal is one line."""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import clouds
from geomkit_cli.app import app
from typer.main import get_command

from geomkit.data import load_data
from geomkit.metrics import METRICS, gap
from geomkit.models.checkpoints import load_run, save_run

TRAIN = "train --dim 3 --loss cua --model nano --pairs 32 --batch-size 16 --steps 4 --eval-every 2"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from geomkit_cli.app import run

    path = tmp_path_factory.mktemp("trained") / "ckpt.pt"
    assert run([*TRAIN.split(), "--out", str(path), "--quiet"]) == 0
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    x, y = clouds(30, 6)
    np.savez(tmp_path / "e.npz", image=x, text=y)
    return tmp_path / "e.npz"


def test_train_gap_and_plot_sphere_one_after_the_other(cli) -> None:
    trained = cli(*TRAIN.split())
    assert trained.status == 0 and trained.out == "ckpt.pt\n"
    lines = [line for line in trained.err.splitlines() if not line.startswith("prepared")]
    assert "recipe 'sphere'" in lines[0] and "32 pairs of 'openmoji'" in lines[0]
    # a line an evaluation: steps 0, 2, 4 and the early one of 3-D, 1
    assert [line.split()[1].split("/")[0] for line in lines[1:]] == ["0", "1", "2", "4"]
    assert "\r" not in trained.err and "\x1b" not in trained.err
    measured = cli("gap", "ckpt.pt")
    assert measured.status == 0 and "ckpt.pt val" in measured.out and "n=400, d=3" in measured.out
    assert "-2.08 = spread over the whole sphere" in measured.out
    drawn = cli("plot-sphere")
    assert drawn.status == 0 and drawn.out == "sphere.png\n"
    assert Path("sphere.png").read_bytes().startswith(b"\x89PNG")
    assert cli("plot-sphere").status == 0  # drawn again under its default name
    assert cli("plot-sphere", "--out", "sphere.png").status == 2
    drawn = cli("plot-sphere", "--html", "sphere.html")
    assert drawn.status == 0 and drawn.out == "sphere.html\n" and not drawn.err
    first = json.dumps(load_data(n=32).captions[0])
    assert f'"captions": [{first}, ' in Path("sphere.html").read_text("utf-8")
    assert cli("plot-sphere", "--html", "s.html", "--stages", "0").status == 2
    assert cli(*TRAIN.split(), "--resume").status == 0


def test_quiet_says_nothing(cli) -> None:
    outcome = cli(*TRAIN.split(), "--quiet")
    assert outcome.status == 0 and outcome.err == "" and outcome.out == "ckpt.pt\n"


def test_json_and_csv_equal_the_library(cli, npz: Path, checkpoint: Path) -> None:
    outcome = cli("gap", npz, checkpoint, "--json", "--split", "train")
    assert outcome.status == 2  # a split is nothing to a file of embeddings
    outcome = cli("gap", npz, checkpoint, "--json")
    whole = json.loads(outcome.out)
    assert whole["schema_version"] == 1
    first, second = whole["results"]
    arrays = np.load(npz)
    expected = gap(arrays["image"], arrays["text"]).metrics
    assert first["metrics"] == dict(expected) and list(first["metrics"]) == list(METRICS)
    assert (first["n"], first["dim"], first["split"]) == (30, 6, None)
    assert second["split"] == "val" and second["n"] == 400 and second["exact"] is True
    library = gap(arrays["image"], arrays["text"])
    for key in ("stderr", "null", "ideal", "p_value"):
        assert first[key] == dict(getattr(library, key)) and first[key]
    rows = list(csv.DictReader(io.StringIO(cli("gap", npz, "--csv").out)))
    assert {row["metric"]: float(row["value"]) for row in rows} == dict(expected)
    assert {r["metric"]: float(r["null"]) for r in rows if r["null"]} == dict(library.null)


def test_gap_of_a_checkpoint_equals_its_own_history(cli, checkpoint: Path) -> None:
    outcome = cli("gap", checkpoint, "--split", "train", "--json")
    measured = json.loads(outcome.out)["results"][0]["metrics"]
    recorded = load_run(checkpoint).history[-1].metrics
    for name, value in recorded.items():
        assert measured[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_npy_of_two_stacked_matrices(cli, tmp_path: Path) -> None:
    x, y = clouds(20, 4)
    np.save(tmp_path / "both.npy", np.stack([x, y]).astype(np.float32))
    outcome = cli("gap", "both.npy", "--metrics", "centroid_distance", "--json")
    value = json.loads(outcome.out)["results"][0]["metrics"]["centroid_distance"]
    assert value == pytest.approx(np.linalg.norm(x.mean(0) - y.mean(0)), rel=1e-5)


def test_the_table_holds_every_value(cli, npz: Path) -> None:
    outcome = cli("gap", npz, npz, "--metrics", "all")
    arrays = np.load(npz)
    for name, value in gap(arrays["image"], arrays["text"]).metrics.items():
        line = next(line for line in outcome.out.splitlines() if line.startswith(f"{name} "))
        cells = [cell.split(" ± ")[0] for cell in re.split(r"\s{2,}", line)[1:3]]
        assert [float(cell) for cell in cells] == pytest.approx([value] * 2, abs=5e-4)
    assert "0.5 = inseparable … 1 = disjoint" in outcome.out and "n=30, d=6" in outcome.out


@pytest.mark.parametrize(
    ("limit", "status"),
    [
        (("--max-centroid-distance", "1.9"), 0),
        (("--max-centroid-distance", "0.1"), 1),
        (("--min-paired-cosine=0.99",), 1),
        (("--min-text-retrieval-recall@1", "0"), 0),
    ],
)
def test_limits_decide_the_exit_status(cli, npz: Path, limit: tuple, status: int) -> None:
    outcome = cli("gap", npz, *limit)
    assert outcome.status == status
    assert ("the limit" in outcome.err) == bool(status)


def test_an_undefined_value_keeps_no_limit(cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "same.npz", image=np.ones((4, 3)), text=np.ones((4, 3)))
    outcome = cli("gap", "same.npz", "--max-relative-modality-gap", "5")
    assert outcome.status == 1 and "undefined and misses the limit 5" in outcome.err
    assert json.loads(cli("gap", "same.npz", "--json").out)["results"][0]["meta"]["reasons"]


def test_data_lists_and_shows(cli) -> None:
    assert "openmoji" in cli("data").out
    outcome = cli("data", "openmoji,captions=5", "--out", "sheet.png", "--size", "32")
    assert outcome.status == 0 and "CC BY-SA 4.0" in outcome.out and "attribution" in outcome.out
    assert Path("sheet.png").exists()


def test_losses_are_listed(cli) -> None:
    from geomkit.losses import PRESETS, TERMS

    listed = cli("losses").out
    for term in TERMS.values():
        assert f"  {term.name} " in listed and term.summary in listed and term.source in listed
    found = json.loads(cli("losses", "--json").out)
    assert list(found["terms"]) == list(TERMS) and list(found["presets"]) == list(PRESETS)
    siglip = found["terms"]["siglip"]
    assert siglip["logit_bias"] == -10.0 and siglip["products"] == 1
    assert found["presets"]["cuaxu"]["products"] == 4
    assert f"{TERMS['alignment'].summary}; cost n·d  (" in listed and "; cost 4 n²·d  (" in listed


def test_metrics_are_listed_and_explained(cli) -> None:
    listed = cli("metrics").out
    for name, metric in METRICS.items():
        line = next(line for line in listed.splitlines() if line.startswith(f"  {name} "))
        assert metric.cost in line and metric.summary
        assert metric.summary.replace("−", "-") in line.replace("−", "-")
        assert ":math:" not in line and ":func:" not in line and "{" not in line
        assert metric.summary in cli("metrics", name).out
    assert set(json.loads(cli("metrics", "--json").out)["metrics"]) == set(METRICS)


def test_help_of_80_columns_breaks_no_choice(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = cli("train", "--help").out
    assert (
        "auto | standard |" in text and "sphere | paper" in text and "auto|fp32|bf16|fp64" in text
    )
    assert "[default: tiny; sphere nano" in " ".join(text.replace("│", " ").split())
    assert "[default: gap.png]" in cli("plot-gap", "--help").out


def test_plot_sphere_of_more_dimensions(cli) -> None:
    size = "--model nano --pairs 32 --batch-size 16 --steps 1"
    words = f"train --dim 6 {size} --quiet".split()
    assert cli(*words).status == 0
    assert cli("plot-sphere", "--out", "s.svg").status == 0
    text = Path("s.svg").read_text()
    assert "3 of 6 uncentred PCs" in text and "val split, n=400" in text


@pytest.mark.parametrize("name", list(get_command(app).commands))
def test_help_ends_in_two_examples_that_parse(cli, name: str) -> None:
    shown = cli(name, "--help").out
    examples = [line.strip() for line in shown.splitlines() if line.startswith(" $ geomkit ")]
    assert len(examples) == 2 and shown.rstrip().endswith(examples[1])
    for example in examples:
        _, _, command, *words = shlex.split(example)
        assert command == name
        # Raises a usage error for an option or a choice that is not there.
        get_command(app).commands[name].make_context(name, words)


def test_help_is_quick_and_files_are_measured_without_torch_or_sklearn(npz: Path) -> None:
    code = (
        "import sys; from geomkit_cli.app import run\n"
        "assert run(['--help']) == 0 and run(['gap', '--help']) == 0\n"
        f"assert run(['gap', {str(npz)!r}]) == 0\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'pandas', 'matplotlib', 'plotly', 'umap'}\n"
        "heavy |= {'open_clip', 'jinja2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_has_gone_is_no_failure() -> None:
    command = f"{sys.executable} -m geomkit_cli metrics | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train --loss cuaq", ("unknown loss", "did you mean 'cua'")),
        ("train --loss clip+unifrmity", ("did you mean 'uniformity'",)),
        ("train --data openmojo", ("unknown data set", "did you mean 'openmoji'")),
        ("train --device cudda", ("unknown device", "did you mean 'cuda'")),
        ("train --precision fp31", ("unknown precision", "did you mean 'fp32'")),
        ("train --model tinny", ("unknown model", "did you mean 'tiny'")),
        ("train --dim 1", ("dim", "2 or more")),
        ("train --dim three", ("--dim", "integer", "see geomkit train --help")),
        ("train --dim 3 --batch-size 9999", ("9999", "1024 training pairs")),
        ("train --pairs 99999", ("expected 2 to",)),
        ("train --steps 5 --epochs 2", ("exclude each other",)),
        ("train --los clip", ("--los", "see geomkit train --help")),
        ("train --out missing/ckpt.pt", ("missing", "no such folder")),
        ("train --out .", ("is a folder",)),
        ("gap", ("name at least one",)),
        ("gap missing.npz", ("missing.npz", "no such file")),
        ("gap .", ("no img_emb", "clip-retrieval")),
        ("gap a.npz --image b.npy", ("name sources, or modalities",)),
        ("gap --image b.npy", ("b.npy: no such file",)),
        ("gap --modality b.npy", ("expected NAME=FILE",)),
        ("gap --modality a=b.npy --modality a=c.npy", ("named twice",)),
        ("gap --seed -1 --image a.npy", ("a.npy: no such file",)),
        ("gap missing.npz --exact-limit many", ("--exact-limit",)),
        ("metrics alignmend", ("did you mean 'alignment'",)),
        ("gap missing.npz --max-centroid-distanse 1", ("did you mean 'centroid-distance'",)),
        ("gap missing.npz --max-alignment much", ("expected a number",)),
        ("gap missing.npz --max-alignment nan", ("expected a number",)),
        ("gap missing.npz --metrics alignmend", ("did you mean 'alignment'",)),
        ("gap missing.npz --json --csv", ("exclude each other",)),
        ("plot-sphere", ("ckpt.pt", "no such file")),
        ("plot-sphere ckpt.pt --out s.jpg", ("s.jpg", ".png")),
        ("data openmoji,skintone=1", ("did you mean 'skin_tones'",)),
        ("gapp", ("gapp",)),
        ("train --workers -3", ("--workers", "expected 0 to 256, got -3")),
        ("train --workers 1000000", ("--workers", "expected 0 to 256, got 1000000")),
        ("data openmoji --seed -1 --out s.png", ("--seed", "expected 0 or more, got -1")),
        ("train --lock image=²", ("--lock image=²", "expected image")),
        ("train --device cuda:²", ("unknown device 'cuda:²'",)),
        ("reproduce figure1 --seeds ²", ("--seeds: expected numbers",)),
        ("reproduce figure1 --threads 20000", ("--threads: expected 0 or more, up to 1,024",)),
    ],
)
def test_bad_words(refused, words: str, says: tuple[str, ...]) -> None:
    refused(*words.split(), says=says)
    assert not any(Path().iterdir())


def test_a_device_that_is_not_there(refused) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    refused("train", "--device", "cuda", says=("not available", "--device auto"))


def arrays(**kwargs):
    return lambda path: np.savez(path, **kwargs)


x, y = clouds(10, 4)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (arrays(image=x, text=y[:9], image_index=np.arange(9)), ("image 9 has no text",)),
        (arrays(image=x[None], text=y), ("(n, d) matrix",)),
        (arrays(image=x[:1], text=y[:1]), ("at least two rows",)),
        (arrays(image=x[:0], text=y[:0]), ("at least two rows",)),
        (arrays(image=np.where(x == x[2, 1], np.nan, x), text=y), ("NaN", "row 2")),
        (arrays(image=x, text=np.where(y == y[4, 0], np.inf, y)), ("text", "row 4")),
        (arrays(image=(x * 100).astype(int), text=y), ("floating-point", "int64")),
        (arrays(image=x, other=y), ("expected arrays 'image' and 'text'", "found image")),
        (arrays(image=x * (np.arange(10) != 3)[:, None], text=y), ("zeros in row 3",)),
        (lambda p: Path(p).write_bytes(b""), ("not embeddings", ".npz")),
        (lambda p: Path(p).write_bytes(b"hello"), ("not embeddings", ".npz")),
        (lambda p: Path(p).write_bytes(b"PK\x03\x04" + b"\0" * 50), ("damaged",)),
    ],
)
def test_bad_embeddings(refused, tmp_path: Path, write, says: tuple[str, ...]) -> None:
    write(tmp_path / "bad.npz")
    refused("gap", "bad.npz", says=("bad.npz", *says))


def test_bad_npy(refused, tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", x[0])
    refused("gap", "flat.npy", says=("(2, n, d)", "(4,)"))
    np.save(tmp_path / "three.npy", np.stack([x, y, y]))
    refused("gap", "three.npy", says=("(2, n, d)", "(3, 10, 4)"))
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    refused("gap", "objects.npy", says=("not plain arrays",))
    whole = io.BytesIO()
    np.save(whole, np.stack([x, y]))
    (tmp_path / "cut.npy").write_bytes(whole.getvalue()[:200])
    refused("gap", "cut.npy", says=("damaged",))


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_bad_checkpoints(refused, tmp_path: Path, checkpoint: Path) -> None:
    torch.save({"a": Bomb()}, tmp_path / "bomb.pt")
    refused("gap", "bomb.pt", says=("bomb.pt", "refused"))
    (tmp_path / "pickled.pt").write_bytes(pickle.dumps(Bomb()))
    refused("gap", "pickled.pt", says=("pickled.pt",))
    assert not Path("exploded").exists()
    torch.save({"weights": torch.zeros(3)}, tmp_path / "foreign.pt")
    refused("gap", "foreign.pt", says=("neither a checkpoint written by geomkit nor tensors",))
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    refused("plot-sphere", "tensor.pt", says=("neither a checkpoint written by geomkit",))
    whole = checkpoint.read_bytes()
    for share in (0.0, 0.1, 0.9):
        (tmp_path / "cut.pt").write_bytes(whole[: int(share * len(whole))])
        refused("gap", "cut.pt", says=("cut.pt",))
    content = load_run(checkpoint)
    newer = {**content.as_dict(), "schema_version": 2}
    torch.save(newer, tmp_path / "newer.pt")
    refused("gap", "newer.pt", says=("schema version 2", "upgrade"))
    broken = {k: v for k, v in content.as_dict().items() if k != "tokenizer"}
    torch.save(broken, tmp_path / "broken.pt")
    refused("gap", "broken.pt", says=("missing tokenizer",))
    content.model_config["embed_dim"] = 7
    save_run(tmp_path / "misfit.pt", content)
    refused("gap", "misfit.pt", says=("do not fit",))


def test_files_that_cannot_be_read_or_written(refused, tmp_path: Path, npz: Path) -> None:
    import os

    if os.geteuid() == 0:
        pytest.skip("root may read and write everything")
    npz.chmod(0)
    refused("gap", npz, says=("cannot be read",))
    (tmp_path / "locked").mkdir(mode=0o500)
    refused("train", "--out", "locked/c.pt", says=("not writable",))


def test_debug_shows_where(cli, monkeypatch: pytest.MonkeyPatch, npz: Path) -> None:
    from geomkit.errors import GeomkitError

    with pytest.raises(GeomkitError):
        cli("gap", "missing.npz", "--debug")


def test_an_unforeseen_error_is_one_line_too(
    cli, monkeypatch: pytest.MonkeyPatch, npz: Path
) -> None:
    import geomkit.metrics as metrics

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero\nand more")

    monkeypatch.setattr(metrics, "gap", broken)
    outcome = cli("gap", npz)
    assert outcome.status == 2
    assert outcome.err == "geomkit: unexpected ZeroDivisionError: by zero (--debug shows where)\n"


def test_ctrl_c_saves_and_exits_130(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    from geomkit_cli import train as module

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    real = module._Watcher.__call__

    def watch(self, event) -> None:
        real(self, event)
        if event.kind == "step" and event.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(module._Watcher, "__call__", watch)
    outcome = cli(*TRAIN.split())
    assert outcome.status == 130 and "with the same command and --resume" in outcome.err
    assert load_run("ckpt.pt").step == 3
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_every_field_of_the_configuration_is_an_option_of_train(cli) -> None:
    from dataclasses import fields

    from geomkit_cli.train import train

    from geomkit.losses import PRESETS, TERMS
    from geomkit.training.config import TrainConfig

    shown = cli("train", "--help").out
    names = {f.name for f in fields(TrainConfig)}
    indirect = {"lock_image": "lock", "lock_text": "lock", "distinct_captions": "repeat_captions"}
    for name in names:
        option = indirect.get(name, name).replace("_", "-")
        assert re.search(rf"--{option}\s", shown), option
    assert all(name in shown for name in [*PRESETS, *TERMS])
    # What --help lists, panel by panel; a new field joins at the end of its panel.
    assert " ".join(inspect.signature(train).parameters) == (
        "loss dim out resume overwrite data captions repeat_captions pairs cache_images max_bad "
        "image_column caption_column fast_decode model pretrained keep_projection freeze lock "
        "image_size download recipe batch_size accumulate steps epochs lr weight_decay beta1 beta2 "
        "warmup schedule clip_norm temperature learn_temperature seed final_temperature "
        "eval_every eval_split eval_metrics log "
        "precision device threads workers compile"
    )


def test_a_folder_that_is_gone_is_said(
    refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "e.npz", image=np.eye(9), text=np.eye(9))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    refused("plot-pca", tmp_path / "e.npz", says=("current folder no longer exists",))
    monkeypatch.chdir(tmp_path)


def test_the_library_runs_as_a_module_and_completes_words() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "geomkit", "-V"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("geomkit ")
    words = {"COMP_WORDS": "geomkit plot-sphere --projection ", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", "from geomkit_cli.app import app; app(prog_name='geomkit')"],
        env={**os.environ, **words, "_GEOMKIT_COMPLETE": "complete_bash"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["pca", "umap"]


def test_tables_come_as_markdown_latex_and_csv(cli, npz: Path, refused) -> None:
    shown = cli("gap", npz, "--metrics", "gap", "--format", "latex").out
    assert shown.startswith("% ") and r"linear\_separability & " in shown
    assert shown.count("{") == shown.count("}") and r" $\pm$ " in shown and "…" not in shown
    shown = cli("gap", npz, "--metrics", "gap", "--format", "markdown").out
    assert "\n| :-- | --: | --: | --: | --: | :-- |\n" in shown
    rows = list(csv.reader(io.StringIO(cli("reproduce", "list", "--format", "csv").out)))
    assert rows[0] == ["experiment", "question"] and {len(row) for row in rows} == {2}
    refused("gap", npz, "--format", "html", says=("unknown format 'html'", "latex"))
    refused("gap", npz, "--format", "latex", "--json", says=("--format",))


def test_recipes_are_listed_with_their_defaults(cli) -> None:
    listed = cli("recipes").out
    assert re.search(r"^--lr +0.0005 +0.002 +1e-06$", listed, re.M)
    assert re.search(r"^--steps +600 +700 +–$", listed, re.M) and "--beta1" not in listed
    found = json.loads(cli("recipes", "--json").out)["recipes"]
    from geomkit.training.config import RECIPES, TrainConfig

    for name, values in RECIPES.items():
        wanted = {**vars(TrainConfig()), **values}
        assert found[name]["lr"] == wanted["lr"] and found[name]["beta1"] == wanted["beta1"]
