"""From the words that name a model to the model, whatever wrote it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from geomkit.errors import GeomkitError
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.hugging_face import open_hugging_face
from geomkit.models.checkpoints.open_clip_files import open_open_clip
from geomkit.models.checkpoints.openai import open_openai
from geomkit.models.checkpoints.own import TrainedRun, read_torch_file
from geomkit.models.checkpoints.paper import open_paper
from geomkit.models.checkpoints.torchscript import is_torchscript
from geomkit.models.preprocess import Preprocess

__all__ = ["OPENERS", "open_model", "own_model"]

OPENERS: dict[str, Callable[..., Checkpoint]] = {
    "open_clip": open_open_clip,
    "hf": open_hugging_face,
    "openai": open_openai,
    "paper": open_paper,
}
"""What a known prefix stands for. Any other word is a path, so ``C:\\x.pt`` is one."""


def open_model(source: str | Path, *, download: bool = False) -> Checkpoint:
    """A model with all that is needed to feed it.

    Args:
        source: ``open_clip:NAME/TAG_OR_PATH``, ``open_clip:DIR``, ``hf:DIR``, ``openai:FILE``,
            ``paper:FILE``, or the path of a geomkit checkpoint.
        download: let the network be used for what is not on this machine yet.

    Returns:
        The model on the CPU, in float32 and evaluation mode.

    Raises:
        GeomkitError: if it is missing, damaged, of another kind than it is said to be, or would
            have to be executed or downloaded.
    """
    source = str(source)
    prefix, colon, rest = source.partition(":")
    if colon and prefix in OPENERS:
        if not rest:
            raise GeomkitError(f"source '{source}': nothing after the colon; name a file or folder")
        return OPENERS[prefix](rest, source=source, download=download)
    return _own(Path(source), source)


def _own(path: Path, source: str) -> Checkpoint:
    if path.is_dir():
        raise GeomkitError(
            f"{path}: is a folder; a model in it is named open_clip:{path} or hf:{path}"
        )
    if is_torchscript(path):
        raise GeomkitError(f"{path}: a TorchScript archive; if it is OpenAI's CLIP, openai:{path}")
    return own_model(read_torch_file(path), source)


def own_model(content: Any, source: str) -> Checkpoint:
    """The model of a geomkit checkpoint that has been read already.

    Raises:
        GeomkitError: if it is no such checkpoint, incomplete, or newer than this version.
    """
    try:
        run = TrainedRun.from_dict(content, source)
    except GeomkitError as error:
        if isinstance(content, dict) and content.get("format") is None:
            known = ", ".join(f"{prefix}:{source}" for prefix in ("openai", "paper"))
            raise GeomkitError(
                f"{error}; another's is named open_clip:NAME/{source}, {known}"
            ) from None
        raise
    return opened_run(run, source)


def opened_run(run: TrainedRun, source: str) -> Checkpoint:
    """The model of a training run.

    Raises:
        GeomkitError: if the weights do not fit the stored config.
    """
    told = ("loss", "step", "epoch", "data", "config", "versions")
    return Checkpoint(
        run.model(source),
        "geomkit",
        source,
        run.model_config,
        Preprocess.from_dict({"fill_color": 0, **run.preprocess.as_dict()}),
        run.tokenizer,
        {**{key: getattr(run, key) for key in told}, "preprocess_from": "the checkpoint"},
    )
