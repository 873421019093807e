"""What a training run needs before its first step: configuration resolved, model, data, order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from geomkit._core.files import check_target
from geomkit._core.parallel import Team, cores
from geomkit._core.runtime import resolve_precision
from geomkit.data import PairData, load_data
from geomkit.errors import GeomkitError
from geomkit.losses import parse_loss
from geomkit.models.checkpoints import Checkpoint, TrainedRun, load_run
from geomkit.models.preprocess import Preprocess
from geomkit.models.projections import change_dim, freeze, without_biases
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import TwoEncoder, build, model_config
from geomkit.training.config import TrainConfig, differences
from geomkit.training.order import Order, plan_order

__all__ = ["Run", "Words", "prepare", "stored_run", "words_of"]


@dataclass
class Run:
    """A training run, ready to start or to go on.

    Attributes:
        config: as resolved.
        device: as resolved.
        model: on the device, with the weights to start from.
        architecture: open_clip's model config.
        preprocess, tokenizer: of the model.
        data, held_out: pairs to train on and to evaluate on.
        order: of the training pairs.
        description: of the data, for the checkpoint.
        stored: the checkpoint to go on from, or ``None``.
    """

    config: TrainConfig
    device: str
    model: TwoEncoder
    architecture: dict[str, Any]
    preprocess: Preprocess
    tokenizer: Tokenizer
    data: PairData
    held_out: PairData
    order: Order
    description: dict[str, Any]
    stored: TrainedRun | None


def stored_run(out: Path, *, resume: bool, overwrite: bool) -> TrainedRun | None:
    """The checkpoint to go on from, if there is one and that was asked for.

    Raises:
        GeomkitError: if ``out`` exists and neither was asked for, or could not be written.
    """
    if resume and overwrite:
        raise GeomkitError("--resume and --overwrite exclude each other; give one")
    if out.exists() and not (resume or overwrite) and not out.is_dir():
        raise GeomkitError(
            f"{out}: exists already; give --resume to go on, --overwrite to start anew, "
            "or another --out"
        )
    check_target(out, overwrite=True)
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
        config: as asked for.
        out: the checkpoint, for messages.
        stored: what to go on from.
        device: as resolved.
        team: the ranks that share the work.
        cache_images: decode and resize all pictures once, into a file of the cache.
        download: whether a pretrained model may be fetched.
        fit_batch: of data with fewer pairs than a batch takes, make a batch of all there are.
        progress: called while the data set is prepared.

    Raises:
        GeomkitError: see :func:`geomkit.training.loop.train`.
    """
    torch.manual_seed(config.seed)
    loaded = _pretrained(config, stored, download)
    if loaded is not None:
        architecture, preprocess = loaded.model_config, loaded.preprocess
        tokenizer = loaded.tokenizer
        if config.image_size not in (None, preprocess.size):
            raise GeomkitError(
                f"image size: {config.pretrained} takes {preprocess.size} px; "
                "leave out --image-size"
            )
    elif stored is not None and config.pretrained and stored.config.get("pretrained"):
        architecture, preprocess = stored.model_config, stored.preprocess
        tokenizer = stored.tokenizer
    else:
        architecture = model_config(config.model, dim=config.dim, image_size=config.image_size)
        preprocess = Preprocess.for_model(architecture)
        tokenizer = Tokenizer.for_model(architecture)
    bias = parse_loss(config.loss).logit_bias
    if bias is not None and architecture.get("init_logit_bias") is None:
        architecture = {**architecture, "init_logit_bias": bias}
    if not config.dim:
        config = replace(config, dim=architecture["embed_dim"])

    def load(split: str, n: int | None) -> PairData:
        return load_data(
            config.data, split=split, preprocess=preprocess, n=n,
            progress=progress, cache_images=cache_images,
        )  # fmt: skip

    data = load("train", config.pairs)
    held_out = data if config.eval_split == "train" else load(config.eval_split, None)
    if fit_batch and len(data) < config.batch_size:
        share = team.size * config.accumulate  # every rank and part as many
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
            f"accumulate: {config.batch_size // team.size} pairs a rank cannot be computed in "
            f"{config.accumulate} equal parts"
        )
    config = replace(
        config,
        steps=(config.epochs * order.steps_per_epoch) if config.epochs else config.steps,
        eval_every=config.eval_every or order.steps_per_epoch,
    )
    description = {
        "spec": config.data,
        "n": config.pairs,
        "split": config.eval_split,
        "fingerprint": data.fingerprint,
    }
    config = _like_stored(config, out, stored, description, device, team)
    model = _model(config, architecture, loaded, stored)
    return Run(
        config, device, model.to(device), architecture, preprocess, tokenizer,
        data, held_out, order, description, stored,
    )  # fmt: skip


def _pretrained(
    config: TrainConfig, stored: TrainedRun | None, download: bool
) -> Checkpoint | None:
    """The model to start from; a run that goes on has its weights already."""
    if config.pretrained is None:
        return None
    if stored is not None and stored.config.get("pretrained"):
        return None
    from geomkit.sources import open_source

    loaded = open_source(config.pretrained, download=download)
    return change_dim(
        loaded,
        config.dim or loaded.model_config["embed_dim"],
        keep_projection=config.keep_projection,
        seed=config.seed,
    )


def _model(
    config: TrainConfig,
    architecture: dict[str, Any],
    loaded: Checkpoint | None,
    stored: TrainedRun | None,
) -> TwoEncoder:
    if loaded is not None:
        model = loaded.model
        scale = model.get_parameter("clip.logit_scale")
        with torch.no_grad():
            scale.fill_(float(np.log(1.0 / config.temperature)))
        scale.requires_grad_(config.learn_temperature)
    else:
        model = build(
            architecture,
            temperature=config.temperature,
            learn_temperature=config.learn_temperature,
        )
    bias = parse_loss(config.loss).logit_bias
    if bias is not None and model.logit_bias is None:
        model.clip.logit_bias = nn.Parameter(torch.tensor(bias))
    if config.precision == "fp64":
        model = model.double()
    if stored is not None:
        model.clip.load_state_dict(stored.state_dict)
    if model.logit_bias is not None:
        model.logit_bias.requires_grad_(bias is not None)
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


def _like_stored(
    config: TrainConfig,
    out: Path,
    stored: TrainedRun | None,
    description: dict[str, Any],
    device: str,
    team: Team,
) -> TrainConfig:
    """The configuration with precision and threads resolved, as the stored run's if it fits it."""
    if stored is not None:
        changed = differences(stored.config, config)
        if changed:
            raise GeomkitError(
                f"{out}: was trained with another configuration ({'; '.join(changed)}); "
                "give the same options, or --overwrite to start anew"
            )
        if stored.data["fingerprint"] != description["fingerprint"]:
            raise GeomkitError(
                f"{out}: was trained on other data ({stored.data['fingerprint']['source']}, "
                f"{stored.data['fingerprint']['count']} pairs) than '{config.data}' is now; "
                "give that data, install those versions, or --overwrite to start anew"
            )
        config = replace(config, precision=stored.config["precision"])
        if stored.ranks == team.size:
            config = replace(config, threads=stored.config["threads"])
    threads = cores() if team.size > 1 else torch.get_num_threads()
    return replace(
        config,
        precision=resolve_precision(config.precision, device),
        threads=config.threads or threads,
    )


@dataclass
class Words:
    """Token ids of a step's captions.

    Attributes:
        order: which caption a row has at a step.
        captions: all that training may draw, in the order's numbering.
        tokenizer: of the model.
        table: their token ids, if it is better to have them all at once: of pictures in memory,
            whose batches no worker prepares.
    """

    order: Order
    captions: list[str]
    tokenizer: Tokenizer
    table: torch.Tensor | None

    def __call__(self, step: int, rows: np.ndarray) -> torch.Tensor:
        """Token ids ``(k, context)`` of rows at a step."""
        numbers = self.order.texts(step, rows)
        if self.table is not None:
            return self.table[torch.from_numpy(numbers)]
        return self.tokenizer.encode([self.captions[number] for number in numbers])


def words_of(run: Run) -> Words:
    """The captions of a run as token ids."""
    if run.config.captions == "first":
        captions = run.data.names
    else:
        captions = [caption for group in run.data.captions for caption in group]
    table = run.tokenizer.encode(captions) if run.data.in_memory else None
    return Words(run.order, captions, run.tokenizer, table)
