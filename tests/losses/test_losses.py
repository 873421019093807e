"""Losses: parsing, open_clip's ClipLoss, gradients, precision."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from conftest import clouds
from open_clip.loss import ClipLoss

from geomkit import functional
from geomkit.errors import GeomkitError
from geomkit.losses import TERMS, ContrastiveLoss, parse_loss


def batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = clouds(n=12, d=5)
    return torch.from_numpy(x).to(dtype), torch.from_numpy(y).to(dtype)


def test_clip_equals_open_clips() -> None:
    x, y = (rows.requires_grad_() for rows in batch())
    scale = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)
    ours = ContrastiveLoss("clip")(x, y, scale)
    theirs = ClipLoss()(x, y, scale)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-13)
    for a, b in zip(
        torch.autograd.grad(ours, (x, y, scale)),
        torch.autograd.grad(theirs, (x, y, scale)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["clip", "cua", "cuaxu", "cu", "ca", "cxu", "uaxu"])
def test_presets_are_the_sums_they_say(name: str) -> None:
    x, y = batch()
    scale = torch.tensor(10.0, dtype=torch.float64)
    values = {
        "clip": functional.contrastive(x, y, scale),
        "uniformity": (functional.uniformity(x) + functional.uniformity(y)) / 2,
        "cross_uniformity": functional.cross_uniformity(x, y),
        "alignment": functional.alignment(x, y),
    }
    letters = {"c": "clip", "u": "uniformity", "a": "alignment", "x": "cross_uniformity"}
    spelled = "c" if name == "clip" else name.replace("xu", "x")
    expected = sum(float(values[letters[letter]]) for letter in spelled)
    assert float(ContrastiveLoss(name)(x, y, scale)) == pytest.approx(expected, rel=1e-12)


def test_weights_and_dictionary() -> None:
    x, y = batch()
    scale = torch.tensor(10.0)
    loss = ContrastiveLoss("clip + 0.5*uniformity + 2*alignment")
    terms = loss(x, y, scale, output_dict=True)
    assert list(terms) == ["clip_loss", "uniformity_loss", "alignment_loss"]
    assert float(terms["alignment_loss"]) == pytest.approx(2 * float(functional.alignment(x, y)))
    assert float(sum(terms.values())) == pytest.approx(float(loss(x, y, scale)), rel=1e-12)


def test_drops_into_open_clips_training_step() -> None:
    # open_clip 3.3: losses = loss(**model_out, output_dict=True); total = sum(losses.values())
    x, y = batch(torch.float32)
    out = {"image_features": x, "text_features": y, "logit_scale": torch.tensor(10.0)}
    losses = ContrastiveLoss("cua")(**out, output_dict=True)
    assert float(sum(losses.values())) == pytest.approx(float(ContrastiveLoss("cua")(**out)))
    bias = ContrastiveLoss("clip")(**out, logit_bias=torch.tensor(-3.0))
    assert float(bias) == pytest.approx(float(ContrastiveLoss("clip")(**out)), rel=1e-5)


@pytest.mark.parametrize("loss", ["cuaxu", "uaxu", "clip + 0.5*uniformity"])
def test_gradients(loss: str) -> None:
    x, y = (rows[:5].clone().requires_grad_() for rows in batch())
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ContrastiveLoss(loss), (x, y, scale))


def test_half_precision_features_are_computed_in_float32() -> None:
    x, y = batch(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ContrastiveLoss("cuaxu")(x, y, torch.tensor(10.0))
    assert value.dtype == torch.float32
    exact = ContrastiveLoss("cuaxu")(x.double(), y.double(), torch.tensor(10.0))
    assert float(value) == pytest.approx(float(exact), abs=1e-5)


def test_identical_rows_have_finite_gradients() -> None:
    x = torch.nn.functional.normalize(torch.ones(6, 4), dim=1).requires_grad_()
    ContrastiveLoss("cuaxu")(x, x, torch.tensor(100.0)).backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cuxau", "did you mean 'cuaxu'"),
        ("clip + unifromity", "did you mean 'uniformity'"),
        ("", "empty term"),
        ("clip +", "empty term"),
        ("clip + *alignment", "not a positive number"),
        ("clip + -1*alignment", "not a positive number"),
        ("clip + nan*alignment", "not a positive number"),
        ("clip + two*alignment", "not a positive number"),
        ("clip + cua", "appears twice"),
        ("clip alignment", "unknown loss or term"),
    ],
)
def test_what_does_not_parse_is_refused(text: str, says: str) -> None:
    with pytest.raises(GeomkitError, match=says.replace("+", r"\+")):
        parse_loss(text)


def test_parsing_exponents_and_presets_in_sums() -> None:
    assert parse_loss("1e+1*clip+2e-1*alignment").weights == {"clip": 10.0, "alignment": 0.2}
    assert parse_loss("2*ca + uniformity").weights == {"clip": 2, "alignment": 2, "uniformity": 1}


@pytest.mark.parametrize("loss", ["clip", "cua", "cuaxu", "cyclip", "m2mix", "modgap"])
def test_no_tensor_is_larger_than_the_matrix_of_pairs(loss: str) -> None:
    """The paper's own code builds differences of shape (n, n, d)."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = [0]

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor):
                    largest[0] = max(largest[0], tensor.numel())
            return out

    n, d = 64, 16
    x, y = (torch.randn(n, d, requires_grad=True) for _ in range(2))
    with Largest():
        unit = [torch.nn.functional.normalize(t, dim=1) for t in (x, y)]
        ContrastiveLoss(loss)(*unit, torch.tensor(20.0)).backward()
    assert largest[0] == n * n and x.grad is not None


@pytest.mark.parametrize("name", ["clip", "cua"])
def test_rows_that_are_not_of_unit_length_are_refused_or_normalised(name: str) -> None:
    x, y = batch()
    scale = torch.tensor(10.0, dtype=torch.float64)
    with pytest.raises(GeomkitError, match=r"text_features: .* norms from 2 to 2; .*normalize="):
        ContrastiveLoss(name)(x, 2 * y, scale)
    expected = ContrastiveLoss(name)(x, y, scale)
    found = ContrastiveLoss(name, normalize=True)(3 * x, 2 * y, scale)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    rounded = (x.bfloat16(), y.bfloat16())
    assert ContrastiveLoss(name)(*rounded, scale.float()).item() == pytest.approx(
        expected.item(), abs=0.1
    )


class Model(torch.nn.Module):
    """Learns temperature and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = (torch.nn.Parameter(torch.tensor(v)) for v in (2.0, -10.0))
        self.loss = ContrastiveLoss("cuaxu + siglip", normalize=True)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.loss(x, y, self.scale.exp(), self.bias)


def scaled_gradients(network: Callable[..., torch.Tensor], model: Model) -> tuple:
    inputs = [rows.half().requires_grad_() for rows in batch()]
    with torch.autocast("cpu", dtype=torch.float16):
        value = network(*inputs)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    return torch.autograd.grad(scaler.scale(value), [*inputs, *model.parameters()])


def test_as_a_part_of_a_model_under_autocast_and_a_gradient_scaler() -> None:
    model = Model()
    assert list(model.state_dict()) == ["scale", "bias"]  # the loss itself holds nothing
    found = scaled_gradients(model, model)
    model.loss = ContrastiveLoss("clip")  # leaves the bias alone
    rows = [torch.nn.functional.normalize(part.half().float()) for part in batch()]
    expected = 8 * torch.autograd.grad(model(*rows), model.scale)[0]
    model.loss = ContrastiveLoss("siglip")
    expected += 8 * torch.autograd.grad(model(*rows), model.scale)[0]
    assert float(found[2]) == pytest.approx(float(expected), rel=1e-4)
    assert all(slope.isfinite().all() and slope.any() for slope in found)


@pytest.mark.parametrize("name", [name for name in TERMS if name != "m2_mix"])  # draws at random
def test_terms_write_nothing_that_torch_compile_refuses(name: str) -> None:
    """It makes functions of tensors that write into none, as functionalize does by itself."""
    x, y = batch(torch.float32)
    loss, scale = ContrastiveLoss(name), torch.tensor(10.0)
    found = torch.func.functionalize(torch.func.grad(loss))(x, y, scale)
    torch.testing.assert_close(found, torch.func.grad(loss)(x, y, scale))


@pytest.mark.skipif(
    int(os.environ.get("GEOMKIT_EXAMPLES", "0")) < 1000, reason="compiling takes seconds"
)
@pytest.mark.filterwarnings("ignore:Dynamo detected:UserWarning")
def test_compiled_as_a_part_of_a_model() -> None:
    model = Model()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    pairs = zip(scaled_gradients(model, model), scaled_gradients(compiled, model), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=0.01, atol=0.002)  # the rows' are float16


class Loader(list):
    """Batches with the counts that open_clip's loop asks for."""

    num_batches, num_samples = 3, 18


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("learned", [False, True])
def test_open_clips_own_epoch_has_the_same_losses_and_weights(learned: bool) -> None:
    from open_clip import CLIP
    from open_clip_train.train import train_one_epoch

    arguments = SimpleNamespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=True,
        horovod=False, grad_clip_norm=None, log_every_n_steps=1, batch_size=6, world_size=1,
        rank=0, local_rank=0, log_local=False, wandb=False,
    )  # fmt: skip
    side = {"width": 16, "layers": 1}
    vision = {"image_size": 8, "patch_size": 4, "head_width": 8, **side}
    text = {"context_length": 4, "vocab_size": 30, "heads": 2, **side}
    found: list[list[torch.Tensor]] = []
    for criterion in (ClipLoss(), ContrastiveLoss("clip")):
        values: list[torch.Tensor] = []
        criterion.register_forward_hook(lambda _, x, out, v=values: v.extend(out.values()))
        torch.manual_seed(0)
        model = CLIP(8, vision, text, output_dict=True).double()
        model.logit_scale.requires_grad_(learned)
        images, words = torch.randn(3, 6, 3, 8, 8).double(), torch.randint(30, (3, 6, 4))
        loader = Loader(zip(images, words, strict=True))
        data = {"train": SimpleNamespace(dataloader=loader, set_epoch=lambda epoch: None)}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train_one_epoch(model, data, criterion, 0, optimizer, None, None, None, arguments)
        found.append([*values, *model.parameters()])
    assert len(values) == 3 and values[0] != values[2]
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
