"""One training step: the optimizer, the gradient of a batch, and reading the loss."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from geomkit._core.runtime import autocast
from geomkit.errors import GeomkitError
from geomkit.losses import ContrastiveLoss
from geomkit.models.two_encoder import TwoEncoder
from geomkit.training.config import TrainConfig

__all__ = [
    "Reading", "backward", "check_finite", "finite_terms", "optimizer_for", "settle",
    "start_reading",
]  # fmt: skip

Reading = Callable[[], list[float]]
"""Waits for values on their way from a device, and returns them."""


def optimizer_for(model: TwoEncoder, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW over the trained weights; embeddings, gains and biases have no weight decay."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (free if weight.ndim < 2 or "embedding" in name else decayed).append(weight)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def backward(
    network: nn.Module,
    criterion: ContrastiveLoss,
    pixels: Tensor,
    words: Tensor,
    *,
    device: str,
    precision: str,
    chunks: int = 1,
) -> dict[str, Tensor]:
    """Add the gradient of a batch's loss to the weights' gradients; return its weighted terms.

    With several chunks the loss is still that of the whole batch (Gao et al., "Scaling Deep
    Contrastive Learning Batch Size under Memory Limited Setup", arXiv 2101.06983): the features of
    all chunks are computed without a graph, the loss gives its gradient with respect to them, and
    each chunk is run once more to carry its part of it to the weights. The memory is that of one
    chunk; the work grows by a third.

    Args:
        network: A :class:`TwoEncoder`, perhaps compiled or wrapped by DistributedDataParallel.
        criterion: Loss.
        pixels: Standardised images ``(b, 3, h, w)``, on the device.
        words: Token ids ``(b, length)``, on the device.
        device: Device, resolved.
        precision: Precision, resolved.
        chunks: Number of chunks of b / chunks pairs.
    """

    def encode(pixels: Tensor, words: Tensor) -> list[Tensor]:
        with autocast(device, precision):
            x, y, *logit = network(pixels, words)
        # A loss without a bias is not given one: a softmax does not depend on it.
        return [x, y, *logit[: 1 + (criterion.spec.logit_bias is not None)]]

    def loss(values: list[Tensor]) -> dict[str, Tensor]:
        terms = criterion(*values, output_dict=True)
        torch.stack(list(terms.values())).sum().backward()
        return terms

    if chunks == 1:
        return loss(encode(pixels, words))
    parts = list(zip(pixels.chunk(chunks), words.chunk(chunks), strict=True))
    states, features = [], []
    with torch.no_grad(), autocast(device, precision):
        for pair in parts:
            states.append(_random_state(device))
            features.append(encode(*pair))
    x = torch.cat([f[0] for f in features]).requires_grad_()
    y = torch.cat([f[1] for f in features]).requires_grad_()
    logit = [value.detach().requires_grad_() for value in features[0][2:]]
    terms = loss([x, y, *logit])
    slopes = zip(_slope(x).chunk(chunks), _slope(y).chunk(chunks), strict=True)
    after = _random_state(device)
    for number, (pair, state, (dx, dy)) in enumerate(zip(parts, states, slopes, strict=True)):
        last = number == chunks - 1
        # The ranks sum their gradients once, on the last chunk, which also carries the gradient
        # of the temperature and the bias.
        with contextlib.nullcontext() if last else _no_sync(network):
            _set_random_state(device, state)
            x_part, y_part, *values = encode(*pair)
            carried = (x_part * dx).sum() + (y_part * dy).sum()
            for value, leaf in zip(values, logit, strict=True):
                carried = carried + (value * _slope(leaf) if last else 0.0 * value)
            carried.backward()
    _set_random_state(device, after)
    return terms


def settle(network: nn.Module, compute: Callable[[], object], *, device: str) -> None:
    """Compute a gradient that is not used, and leave no other trace of it.

    DistributedDataParallel sums the gradients of the first step after a start in one piece, in the
    order of the weights, and from then on in pieces, in the order in which they are ready. The
    order in which three or more ranks are added depends on the place in a piece, so that the bits
    of a resumed run would depend on where it was resumed. A step of time at each start makes all
    steps alike; pieces that are never ordered anew would cost NCCL the overlap with the gradients'
    computation at every step.

    Args:
        network: A model wrapped by DistributedDataParallel.
        compute: Function that adds the gradient of a batch to the weights' gradients.
        device: Device, resolved.
    """
    state, buffers = _random_state(device), [(b, b.clone()) for b in network.buffers()]
    compute()
    _set_random_state(device, state)
    with torch.no_grad():
        for buffer, before in buffers:  # running statistics
            buffer.copy_(before)


def _slope(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _no_sync(network: nn.Module) -> contextlib.AbstractContextManager:
    no_sync = getattr(network, "no_sync", None)
    return no_sync() if no_sync is not None else contextlib.nullcontext()


def _random_state(device: str) -> list[Tensor]:
    """Random state of the host, where some layers draw wherever they compute, and the device."""
    own = [torch.cuda.get_rng_state(device)] if device.startswith("cuda") else []
    return [torch.get_rng_state(), *own]


def _set_random_state(device: str, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)


def start_reading(values: Tensor) -> Reading:
    """Start copying values to the host; the returned function waits for that copy alone."""
    if values.device.type != "cuda":
        return values.tolist
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def read() -> list[float]:
        arrived.synchronize()
        return host.tolist()

    return read


def check_finite(
    step: int, model: nn.Module, optimizer: torch.optim.Optimizer, *, out: Path
) -> None:
    """Refuse weights or an optimizer's state that are not finite, before they are saved.

    Raises:
        GeomkitError: Naming the first weight.
    """
    for name, weight in model.named_parameters():
        held = [weight, *optimizer.state.get(weight, {}).values()]
        if not all(bool(torch.isfinite(x).all()) for x in held if isinstance(x, torch.Tensor)):
            raise GeomkitError(
                f"step {step}: {name} or its optimizer state is not finite, after a gradient that "
                f"was not; lower --lr, or give --clip-norm or another --precision ({out} holds the "
                "last good state)"
            )


def finite_terms(
    step: int, names: list[str], values: list[float], *, out: Path
) -> dict[str, float]:
    """Return the terms of a loss by name.

    Raises:
        GeomkitError: If one is not finite.
    """
    terms = dict(zip(names, values, strict=True))
    for name, value in terms.items():
        if not math.isfinite(value):
            raise GeomkitError(
                f"step {step}: {name} is {value}; lower --lr or raise --temperature or --warmup "
                f"({out} holds the last good state)"
            )
    return terms
