"""What a training run needs before its first step: configuration resolved, model, data, order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from geomkit._core.parallel import Team, cores
from geomkit._core.runtime import resolve_precision, versions
from geomkit._core.texts import Texts
from geomkit.data import PairData, load_data, parse_spec
from geomkit.errors import GeomkitError
from geomkit.losses import parse_loss
from geomkit.models.architectures import OWN_CONFIGS, model_config
from geomkit.models.checkpoints import Checkpoint, TrainedRun, load_run
from geomkit.models.freezing import freeze, without_biases
from geomkit.models.preprocess import Preprocess
from geomkit.models.projections import change_dim
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import TwoEncoder, build
from geomkit.sources import open_source
from geomkit.training.config import TrainConfig, differences
from geomkit.training.order import Order, Share, plan_order

__all__ = ["Run", "caption_tokens", "prepare", "replacement", "stored_run"]


@dataclass(frozen=True)
class Run:
    """A training run, ready to start or to continue.

    Attributes:
        config: Configuration with nothing left to resolve.
        device: Device of the model.
        start: Model on the device, with the weights to start from.
        data, held_out: Pairs to train on and pairs to evaluate on.
        order: Order of the training pairs.
        description: DATA spec, number of pairs, evaluated split and fingerprint of the data.
        stored: Checkpoint to continue from, or ``None``.
    """

    config: TrainConfig
    device: str
    start: Checkpoint
    data: PairData
    held_out: PairData
    order: Order
    description: dict[str, Any]
    stored: TrainedRun | None

    @property
    def marks(self) -> dict[str, Any]:
        """What ranks must have alike, by what it is in words."""
        chosen = asdict(self.config)
        del chosen["threads"]  # one per core: machines differ
        return {**chosen, **versions(), **self.held_out.marks, **self.data.marks}


def stored_run(out: Path, *, resume: bool, overwrite: bool) -> TrainedRun | None:
    """Return the checkpoint to continue from, if there is one and ``resume`` is given.

    Raises:
        GeomkitError: If ``out`` exists without ``resume`` or ``overwrite``, or cannot be read.
    """
    if resume and overwrite:
        raise GeomkitError("--resume and --overwrite exclude each other; give one")
    if out.exists() and not (resume or overwrite):
        raise GeomkitError(
            f"{out}: exists already; give --resume to continue, --overwrite to replace it, "
            "or another --out"
        )
    return load_run(out) if resume and out.exists() else None


def prepare(
    config: TrainConfig,
    out: Path,
    stored: TrainedRun | None,
    *,
    device: str,
    team: Team,
    cache_images: bool = False,
    download: bool = False,
    fit_batch: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Run:
    """Resolve a configuration and load what it names.

    Args:
        config: Configuration as given.
        out: Checkpoint to write, for messages.
        stored: Checkpoint to continue from.
        device: Device, resolved.
        team: Ranks that share the work.
        cache_images: Whether to decode and resize all images once.
        download: Whether a pretrained model may be downloaded.
        fit_batch: Whether to shrink the batch size to the data set if that is smaller.
        progress: Function called while the data set is prepared.

    Raises:
        GeomkitError: See :func:`geomkit.training.loop.train`.
    """
    torch.manual_seed(config.seed)
    start = starting_model(config, stored, download=download)
    start = _with_bias(start, parse_loss(config.loss).logit_bias)
    load = partial(
        load_data, config.data, preprocess=start.preprocess, progress=progress,
        cache_images=cache_images,
    )  # fmt: skip
    data = load(split="train", n=config.pairs)
    if config.captions == "first" and parse_spec(config.data).options.get("groups"):
        data = data.with_note("captions of groups are drawn with --captions random, not first")
    if stored is None and config.model in OWN_CONFIGS:
        start = _with_vocabulary(start, _captions(data, config))
    held_out = data if config.eval_split == "train" else load(split=config.eval_split, n=None)
    if len(held_out) < 2:
        raise GeomkitError(
            f"'{config.data}': one pair in {held_out.split}, and an evaluation needs two; give "
            "more pairs, or --eval-split train"
        )
    if fit_batch and len(data) < config.batch_size:
        share = team.size * config.accumulate  # every rank and part gets the same number
        config = replace(config, batch_size=max(share, len(data) // share * share))
    order = plan_order(
        data,
        batch_size=config.batch_size,
        seed=config.seed,
        captions=config.captions,
        distinct=config.distinct_captions,
        rank=team.rank,
        ranks=team.size,
    )
    if config.batch_size // team.size % config.accumulate:
        raise GeomkitError(
            f"accumulate: {config.batch_size // team.size} pairs per rank cannot be split into "
            f"{config.accumulate} equal parts; change --accumulate or --batch-size"
        )
    config = replace(
        config,
        dim=config.dim or start.model_config["embed_dim"],
        steps=(config.epochs * order.steps_per_epoch) if config.epochs else config.steps,
        eval_every=config.eval_every or order.steps_per_epoch,
    )
    description = {
        "spec": config.data,
        "n": config.pairs,
        "split": config.eval_split,
        "fingerprint": data.fingerprint,
        "lengths_and_times": data.state(copied=True),
        **data.account(),
    }
    if stored is not None:
        _check_same(config, description, stored, out)
        then = stored.data.get("lengths_and_times", description["lengths_and_times"])
        if then != description["lengths_and_times"]:
            data = data.with_note(
                "the files of the images have other times than when the run began: if their "
                "content is another, the run mixes both"
            )
            description["note"] = data.note
        threads = config.threads if stored.ranks != team.size else stored.config["threads"]
        config = replace(config, precision=stored.config["precision"], threads=threads)
    config = replace(
        config,
        precision=resolve_precision(config.precision, device),
        threads=config.threads or (cores() if team.size > 1 else torch.get_num_threads()),
    )
    start = replace(start, model=_ready(start.model, config, stored).to(device))
    return Run(config, device, start, data, held_out, order, description, stored)


def starting_model(
    config: TrainConfig, stored: TrainedRun | None = None, *, download: bool = False
) -> Checkpoint:
    """The model to start from: pretrained, or fresh weights that a stored run's replace."""
    if config.pretrained and not (stored is not None and stored.config.get("pretrained")):
        found = open_source(config.pretrained, download=download)
        dim = config.dim or found.model_config["embed_dim"]
        found = change_dim(found, dim, keep_projection=config.keep_projection, seed=config.seed)
        if config.image_size not in (None, found.preprocess.size):
            raise GeomkitError(
                f"image size: {config.pretrained} takes {found.preprocess.size} px; "
                "leave out --image-size"
            )
        with torch.no_grad():
            scale = found.model.get_parameter("clip.logit_scale")
            scale.fill_(float(np.log(1.0 / config.temperature)))
        return found
    if stored is not None:
        architecture = stored.model_config
        preprocess, tokenizer = stored.preprocess, stored.tokenizer
    else:
        architecture = model_config(config.model, dim=config.dim, image_size=config.image_size)
        preprocess = Preprocess.for_model(architecture)
        tokenizer = Tokenizer.for_model(architecture)
    model = build(architecture, temperature=config.temperature)
    return Checkpoint(model, "geomkit", config.model, architecture, preprocess, tokenizer)


def _with_bias(found: Checkpoint, start: float | None) -> Checkpoint:
    """The same model with a logit bias, if the loss needs one and the model has none."""
    if start is None or found.model.logit_bias is not None:
        return found
    found.model.clip.logit_bias = nn.Parameter(torch.tensor(start))
    return replace(found, model_config={**found.model_config, "init_logit_bias": start})


def _with_vocabulary(found: Checkpoint, captions: list[str]) -> Checkpoint:
    """The same model without the token embeddings that no caption has: nothing trains them.

    They are most of a small model.
    """
    tokenizer = found.tokenizer.for_captions(captions)
    found.model.keep_tokens(tokenizer.known)
    text = {**found.model_config["text_cfg"], "vocab_size": tokenizer.size}
    return replace(
        found, model_config={**found.model_config, "text_cfg": text}, tokenizer=tokenizer
    )


def _captions(data: PairData, config: TrainConfig) -> list[str]:
    """The captions that training may draw."""
    if config.captions == "random":
        return [caption for group in data.captions for caption in group]
    return data.names


def _check_same(
    config: TrainConfig, description: dict[str, Any], stored: TrainedRun, out: Path
) -> None:
    """Refuse to continue a run with another configuration or other data."""
    if changed := differences(stored.config, config):
        raise GeomkitError(
            f"{out}: was trained with another configuration ({'; '.join(changed)}); "
            "give the same options, or --overwrite to replace it"
        )
    then = stored.data["fingerprint"]
    if then != description["fingerprint"]:
        raise GeomkitError(
            f"{out}: was trained on other data ({then['source']}, {then['count']} pairs) than "
            f"'{config.data}' is now; give that data, install those versions, or --overwrite to "
            "replace it"
        )


def _ready(model: TwoEncoder, config: TrainConfig, stored: TrainedRun | None) -> TwoEncoder:
    """The model with a stored run's weights, and gradients only for what is trained."""
    model.get_parameter("clip.logit_scale").requires_grad_(config.learn_temperature)
    if config.precision == "fp64":
        model = model.double()
    if stored is not None:
        model.clip.load_state_dict(stored.state_dict)
    if model.logit_bias is not None:  # a softmax does not depend on it
        model.logit_bias.requires_grad_(parse_loss(config.loss).logit_bias is not None)
    decoder = getattr(model.clip, "text_decoder", None)
    if decoder is not None:  # CoCa's captioner takes no part; waiting for its gradients would fail
        decoder.requires_grad_(False)
    if config.pretrained and not config.keep_projection:
        without_biases(model)
    if config.freeze or config.lock_image is not None or config.lock_text is not None:
        freeze(
            model,
            config.freeze,
            lock_image=config.lock_image,
            lock_text=config.lock_text,
            fresh_projection=not config.keep_projection,
        )
    return model


def replacement(order: Order, share: Share, place: int, attempt: int) -> int | None:
    """Return the row that replaces a bad image, see :meth:`Order.instead`."""
    return order.instead(share.step, place, attempt)


def caption_tokens(run: Run) -> Callable[[Share, np.ndarray], torch.Tensor]:
    """Return the function that gives token ids ``(k, context)`` of rows of a share.

    It is called in the processes that prepare batches. Images in memory have none: the captions
    that training may draw with them become token ids once.
    """
    captions = _captions(run.data, run.config)
    tokenizer = run.start.tokenizer
    table = tokenizer.encode(captions) if run.data.in_memory else None
    return partial(_tokens, run.order, Texts(captions), tokenizer, table)


def _tokens(
    order: Order,
    captions: Sequence[str],
    tokenizer: Tokenizer,
    table: torch.Tensor | None,
    share: Share,
    rows: np.ndarray,
) -> torch.Tensor:
    # Only where a bad image was replaced, a worker looks into the order itself.
    same = np.array_equal(rows, share.rows)
    numbers = share.texts if same else order.texts(share.step, rows)
    if table is not None:
        return table[torch.from_numpy(numbers)]
    return tokenizer.encode([captions[number] for number in numbers])
