"""GapMonitor: what it measures, when, and that the training does not notice."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import clouds
from torch import nn
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler, TensorDataset

from geomkit import GapMonitor, gap
from geomkit.errors import GeomkitError
from geomkit.monitoring import callbacks, lightning_callback, transformers_callback

X, Y = clouds(n=60, d=6)
PAIRS = tuple(torch.from_numpy(rows).float() for rows in (X, Y))


def monitor_of(held_out: Any = lambda: (X, Y), **options: Any) -> GapMonitor:
    return GapMonitor(held_out, **{"metrics": ["alignment"], "every": 10, **options})


class Model(nn.Module):
    """Everything that an evaluation could change: dropout, running means, a frozen part."""

    def __init__(self) -> None:
        super().__init__()
        self.encode_image, self.encode_text = (
            nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
            for _ in range(2)
        )
        self.switched: list[bool] = []

    def train(self, mode: bool = True) -> Model:
        self.switched.append(mode)  # LoRA merges and unmerges its weights here
        return super().train(mode)


def test_numbers_are_those_of_gap_on_the_drawn_pairs() -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    monitor = monitor_of(
        lambda: PAIRS, rows=20, seed=3, metrics="alignment, effective_rank_image",
        log=lambda step, values: logged.append((step, values)),
    )  # fmt: skip
    result = monitor.measure(7)
    drawn = np.sort(np.random.default_rng(3).choice(60, 20, replace=False))
    expected = gap(*(rows.numpy()[drawn] for rows in PAIRS), metrics=monitor.metrics)
    assert dict(result.metrics) == dict(expected.metrics) and result.n == 20
    assert result.meta["notes"] == ["20 of 60 pairs, drawn with seed 3; 40 are left out"]
    assert monitor.history == [(7, result)]
    values = {"alignment": expected.metrics["alignment"], "pairs": 20, "pairs_left_out": 40}
    values["alignment_stderr"] = expected.stderr["alignment"]
    values["effective_rank_image"] = expected.metrics["effective_rank_image"]  # has no error
    assert logged == [(7, {f"gap/{name}": value for name, value in values.items()})]
    whole = monitor_of(lambda: PAIRS, rows=None, errors=False).measure(0)
    assert whole.n == 60 and "notes" not in whole.meta and not whole.stderr


def test_when_it_measures() -> None:
    monitor = monitor_of()
    for step in (1, 9, 10, 10, 11, 19, 23, 30, 31, 3, 10, 20):  # 23 jumps over 20; 3 starts again
        monitor(step)
    assert [step for step, _ in monitor.history] == [10, 23, 30, 10, 20]
    resumed = monitor_of()
    assert resumed(1015) is None and resumed(1019) is None and resumed(1020) is not None


def train(monitor: Callable[[int], object], model: Model, shuffled: DataLoader) -> torch.Tensor:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(4):
        (x, y), *_ = shuffled
        value = (model.encode_image(x) - model.encode_text(y)).square().mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        monitor(step)
    drawn = torch.tensor([random.random(), np.random.random()])  # noqa: NPY002
    return torch.cat([*(p.detach().flatten() for p in model.parameters()), drawn, value[None]])


def test_training_goes_on_as_if_nothing_had_been_measured() -> None:
    shuffled = DataLoader(TensorDataset(*PAIRS), 16, shuffle=True)
    ended = []
    for monitored in (False, True):
        torch.manual_seed(1)
        model = Model()
        model.encode_text[1].eval()  # frozen
        modes = [part.training for part in model.modules()]

        def embed(model: Model = model) -> tuple[torch.Tensor, torch.Tensor]:
            assert not any(part.training for part in model.modules())
            assert not torch.is_grad_enabled()
            random.random(), np.random.random(), torch.rand(3)  # noqa: NPY002
            list(shuffled)
            return model.encode_image(PAIRS[0]).bfloat16(), model.encode_text(PAIRS[1]).bfloat16()

        monitor = monitor_of(embed, model=model, every=1)
        ended.append(train(monitor if monitored else lambda step: None, model, shuffled))
        assert len(monitor.history) == 4 * monitored
        assert modes == [part.training for part in model.modules()] and torch.is_grad_enabled()
        assert model.switched == [False, True] * 4 * monitored
    assert torch.equal(*ended)


def test_an_error_is_raised_with_its_step_and_the_model_trains_again() -> None:
    model, rows = Model(), X.copy()
    rows[3] = np.nan
    monitor = monitor_of(lambda: (rows, Y), model=model)
    with pytest.raises(GeomkitError, match=r"image: NaN .* in row 3") as caught:
        monitor(10)
    assert caught.value.__notes__ == ["raised by GapMonitor at step 10"]
    assert model.training and monitor.history == []

    def full(step: int, values: dict[str, float]) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        monitor_of(log=full)(10)
    with pytest.raises(GeomkitError, match="got 60 and 59"):
        monitor_of(lambda: (X, Y[1:]))(10)


class Counted(Dataset):
    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.read.append(row)
        return PAIRS[0][row], PAIRS[1][row]


class Output(nn.Module):
    """As transformers' models take and return."""

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(image_embeds=pixel_values, text_embeds=input_ids)


def test_pairs_in_every_form_and_only_those_that_are_needed() -> None:
    model = nn.ModuleList([nn.Identity(), nn.Identity()])
    expected = monitor_of(lambda: PAIRS, rows=20).measure(0)
    data = Counted()
    batches = [tuple(part[i : i + 25] for part in PAIRS) for i in (0, 25, 50)]
    named = [dict(zip(("pixel_values", "input_ids"), batch, strict=True)) for batch in batches]
    forms: list[tuple[Any, nn.Module, Any]] = [
        (PAIRS, model, None),
        (DataLoader(data, 16, shuffle=True), model, None),
        (batches, model, None),
        (named, Output(), None),
        (named, Output(), lambda m, batch: tuple(batch.values())),
        ([[*b, ["a text"]] for b in batches], model, lambda m, b: b[:2] * (b[2] == ["a text"])),
    ]
    for held_out, module, encode in forms:
        found = monitor_of(held_out, model=module, encode=encode, rows=20).measure(0)
        assert dict(found.metrics) == dict(expected.metrics)
        assert found.meta["notes"] == expected.meta["notes"] and found.n == 20
    assert len(data.read) == 20
    # A sampler that leaves out what is trained on is respected.
    data.read.clear()
    some = DataLoader(data, 16, sampler=SubsetRandomSampler(range(40, 60)))
    assert monitor_of(some, model=model, rows=10).measure(0).meta["left_out"] == 10
    assert set(data.read) == set(range(40, 60))


def test_a_compiled_model_inside_ddp_is_measured_without_its_wrappers() -> None:
    inner = Model()
    compiled = torch.compile(inner, backend="eager")
    outer = nn.parallel.DataParallel(compiled)
    found = [monitor_of(PAIRS, model=m).measure(0).metrics["alignment"] for m in (inner, outer)]
    assert found[0] == found[1] and inner.training


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"every": 0}, "every: expected 1 or more, got 0"),
        ({"rows": 1}, "rows: expected 2 or more"),
        ({"metrics": ["alignmnt"]}, "did you mean 'alignment'"),
        ({"log": 3}, "log: int is no logger"),
        ({"log": "run.txt"}, "does not end in .csv"),
        ({"log": "missing/run.csv"}, "no such folder"),
        ({"held_out": PAIRS}, "model: expected the module"),
        ({"encode": lambda model, batch: batch}, "held_out is a function"),
        ({"held_out": iter([PAIRS]), "model": nn.Identity()}, "cannot be read again"),
        ({"held_out": (PAIRS[0], PAIRS[1][1:]), "model": nn.Identity()}, r"got shapes \[\(60"),
    ],
)
def test_what_cannot_work_is_refused_before_the_training(options: dict, says: str) -> None:
    with pytest.raises(GeomkitError, match=says):
        monitor_of(**options)


def test_what_turns_out_unfit_is_refused() -> None:
    for held_out, options, says in (
        (lambda: PAIRS[0], {}, "got Tensor of 60"),
        ([], {"model": Model()}, "no batch"),
        ([PAIRS[0]], {"model": Model()}, r"how Model embeds a batch of Tensor .* give encode"),
        ([PAIRS], {"model": nn.Identity()}, "how Identity embeds a batch of tuple"),
    ):
        with pytest.raises(GeomkitError, match=says):
            monitor_of(held_out, **options).measure(0)


def test_every_kind_of_logger_gets_the_numbers(tmp_path: Path) -> None:
    seen: list[tuple] = []
    writer = SimpleNamespace(add_scalar=lambda name, value, step: seen.append((name, value, step)))
    lightning = SimpleNamespace(log_metrics=lambda values, step: seen.append((values, step)))
    wandb = SimpleNamespace(log=lambda values, step: seen.append((values, step)))
    path = tmp_path / "run.csv"
    monitor = monitor_of(log=[writer, lightning, wandb, str(path)])
    values = monitor.scalars(monitor.measure(10))
    assert seen == [*((*item, 10) for item in values.items()), (values, 10), (values, 10)]
    monitor_of(log=path, metrics=["alignment", "mmd"]).measure(20)  # continued, with a new column
    header, first, second = path.read_text().splitlines()
    assert header.startswith("step,gap/pairs,") and header.endswith("gap/mmd,gap/mmd_stderr")
    assert first.startswith("10,60,0,") and first.endswith(",,") and second.startswith("20,60,0,")
    assert float(second.split(",")[3]) == values["gap/alignment"]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(GeomkitError, match="its first column is not step"):
        monitor_of(log=path)
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("call", "package", "extra"),
    [(lightning_callback, "lightning", "lightning"), (transformers_callback, "transformers", "hf")],
)
def test_a_trainer_that_is_not_installed(
    call: Callable[..., Any], package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name.partition(".")[0])

    monkeypatch.setattr(callbacks, "import_module", absent)
    with pytest.raises(GeomkitError, match=rf"{package} is not installed; .*geomkit\[{extra}\]"):
        call(monitor_of(), *[None] * (package == "transformers"))


def test_lightning_under_its_older_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def found(name: str) -> SimpleNamespace:
        asked.append(name)
        return SimpleNamespace(Callback=object)

    monkeypatch.setattr(callbacks, "import_module", found)
    monkeypatch.setattr(callbacks, "sys", SimpleNamespace(modules={"pytorch_lightning": None}))
    lightning_callback(monitor_of())
    assert asked == ["pytorch_lightning"]
