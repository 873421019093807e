"""Rows of held-out pairs from a model in training, which is left as it was found."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from geomkit._core.array import Array
from geomkit.errors import GeomkitError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Encode", "embedder", "left_as_found", "sample"]

Encode = Callable[[Any, Any], tuple[Array, Array]]
"""From a model and a batch to image rows and text rows."""

_BATCH = 256
"""Pairs that are encoded at once, of tensors that are given whole."""


def sample(n: int, rows: int | None, seed: int) -> np.ndarray:
    """Return the indices of pairs drawn without replacement, ascending; all if there are no more.

    >>> sample(3, 5, seed=0).tolist()
    [0, 1, 2]
    """
    if rows is None or n <= rows:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, rows, replace=False))


def embedder(
    held_out: Any, model: nn.Module, encode: Encode | None, *, rows: int | None, seed: int
) -> Callable[[], tuple[Array, Array, int]]:
    """Return a function that encodes held-out pairs: image rows, text rows, number left out.

    Args:
        held_out: A DataLoader, other batches that can be read again and again, or a tuple of two
            tensors, images and texts.
        model: Model in training.
        encode: Function of model and batch; default: by the kind of the batch.
        rows: Number of pairs to draw. Of tensors, and of a DataLoader that goes over a whole data
            set, only they are read and encoded. Other batches are all encoded, and the caller
            draws from the rows.
        seed: Random seed of the draw.

    Raises:
        GeomkitError: If the pairs can be read only once, or the tensors are of unequal lengths.
    """
    from torch import Tensor
    from torch.utils.data import DataLoader, Subset, TensorDataset

    loader, left_out = held_out, 0
    if isinstance(held_out, tuple) and all(isinstance(part, Tensor) for part in held_out):
        shapes = [tuple(part.shape) for part in held_out]
        if len(shapes) != 2 or shapes[0][:1] != shapes[1][:1]:
            raise GeomkitError(
                f"held_out: expected a tensor of images and one of their texts, got shapes {shapes}"
            )
        loader = DataLoader(TensorDataset(*held_out), batch_size=_BATCH)
    elif not isinstance(held_out, Iterable) or isinstance(held_out, Iterator):
        raise GeomkitError(
            f"held_out: {type(held_out).__name__} cannot be read again at each evaluation; give a "
            "DataLoader, a list of batches, or a function that returns image rows and text rows"
        )
    if isinstance(loader, DataLoader) and _is_whole(loader):
        n = len(loader.dataset)  # type: ignore[arg-type]
        drawn = sample(n, rows, seed)
        left_out = n - len(drawn)
        loader = DataLoader(
            Subset(loader.dataset, drawn.tolist()),
            batch_size=loader.batch_size,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            persistent_workers=loader.persistent_workers,
        )

    def embed() -> tuple[Array, Array, int]:
        import torch

        inner = _unwrapped(model)
        place = next((p.device for p in inner.parameters()), torch.device("cpu"))
        found = [(encode or _encode)(inner, _moved(batch, place)) for batch in loader]
        if not found:
            raise GeomkitError("held_out: no batch; give pairs to measure")
        parts = zip(*found, strict=True)
        image, text = (torch.cat([torch.as_tensor(p).detach() for p in rows]) for rows in parts)
        return image, text, left_out

    return embed


@contextlib.contextmanager
def left_as_found(model: nn.Module | None) -> Iterator[None]:
    """Evaluate a model without gradients, then restore its mode and every random state.

    Random states are those of Python, numpy and torch on the CPU, CUDA and MPS.

    Args:
        model: Model to put into evaluation mode; ``None`` for none.
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch = sys.modules.get("torch")
    generators = [] if torch is None else [torch.default_generator]
    if torch is not None and torch.cuda.is_initialized():
        generators += torch.cuda.default_generators
    if torch is not None and torch.backends.mps.is_available():
        generators.append(torch.mps._get_default_mps_generator())
    states = [generator.get_state() for generator in generators]
    modes = {} if model is None else {part: part.training for part in model.modules()}
    try:
        with contextlib.nullcontext() if torch is None else torch.no_grad():
            if model is not None:
                model.eval()
            yield
    finally:
        if model is not None:
            model.train(modes[model])  # some do more than set the flag, such as to unmerge LoRA
            for part, mode in modes.items():
                part.training = mode
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def _is_whole(loader: Any) -> bool:
    """Whether a DataLoader, on all ranks together, goes once over each item of its data set."""
    from torch.utils.data import (
        DistributedSampler,
        IterableDataset,
        RandomSampler,
        SequentialSampler,
    )

    if loader.batch_size is None or isinstance(loader.dataset, IterableDataset):
        return False
    sampler, n = loader.sampler, len(loader.dataset)
    if getattr(sampler, "data_source", getattr(sampler, "dataset", None)) is not loader.dataset:
        return False
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == n
    return type(sampler) in (SequentialSampler, DistributedSampler)


def _unwrapped(model: Any) -> Any:
    """The model inside DistributedDataParallel, whose forward waits for the other ranks."""
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):  # torch.compile
            model = model._orig_mod
        else:
            return model


def _encode(model: Any, batch: Any) -> tuple[Array, Array]:
    """Rows of a batch: of transformers' if it is a mapping, else open_clip's, or two encoders'."""
    from torch.nn import ModuleList

    if isinstance(batch, Mapping):
        found = model(**batch)
        if getattr(found, "image_embeds", None) is not None and found.text_embeds is not None:
            return found.image_embeds, found.text_embeds
    elif isinstance(batch, list | tuple) and len(batch) >= 2:
        if hasattr(model, "encode_image") and hasattr(model, "encode_text"):
            return model.encode_image(batch[0]), model.encode_text(batch[1])
        if isinstance(model, ModuleList) and len(model) == 2:
            return model[0](batch[0]), model[1](batch[1])
    raise GeomkitError(
        f"held_out: how {type(model).__name__} embeds a batch of {type(batch).__name__} is not "
        "known; give encode, a function of model and batch that returns image and text rows"
    )


def _moved(batch: Any, place: Any) -> Any:
    """A batch whose tensors are on a device."""
    if hasattr(batch, "to"):
        return batch.to(place)
    if isinstance(batch, Mapping):
        return {name: _moved(value, place) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        parts = [_moved(value, place) for value in batch]
        return parts if isinstance(batch, list) else tuple(parts)
    return batch
