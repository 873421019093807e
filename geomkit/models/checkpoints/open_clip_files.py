"""``open_clip:…``: open_clip's pretrained tags, training checkpoints and folders.

The words after the colon are ``NAME/TAG`` for pretrained weights of open_clip, ``NAME/PATH`` for a
weights file of an architecture (``PATH#KEY`` for the entry KEY of a training checkpoint, such as
``state_dict_ema``, or for the weights whose names begin with it), or a folder with
``open_clip_config.json``.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._core.schema import check_schema
from geomkit.errors import GeomkitError, reason, unknown_name
from geomkit.models.architectures import ModelConfig, model_config, model_names
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.choice import open_fitting, refuse_transformers
from geomkit.models.checkpoints.fit import fitted
from geomkit.models.checkpoints.folder_inputs import as_written, has_tokenizer, read_json
from geomkit.models.checkpoints.kinds import CheckpointKind
from geomkit.models.checkpoints.open_clip_names import (
    assumed_activation,
    assumed_preprocessing,
    name_and_rest,
    or_tags,
    tag_of,
)
from geomkit.models.checkpoints.other_folders import HUB, hint, hub_hint
from geomkit.models.checkpoints.sizes import fit_sizes
from geomkit.models.checkpoints.text_model import HUB_NAME, text_model_config
from geomkit.models.checkpoints.weights import read_weights, with_key
from geomkit.models.config_check import check_config
from geomkit.models.hub import closed
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from geomkit.models.two_encoder import TwoEncoder

__all__ = ["KIND"]

_CONFIG = "open_clip_config.json"
_PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""In open_clip's own order."""


def _open(place: str, *, source: str, download: bool) -> Checkpoint:
    if (Path(place) / _CONFIG).is_file():
        with as_written(Path(place) / _CONFIG):
            return _from_folder(Path(place), source, download)
    name, rest = name_and_rest(place)
    if name is None:
        raise _no_architecture(place, source)
    if not rest:
        raise GeomkitError(f"{source}: which weights? Give {name}/PATH{or_tags(name)}")
    path, key = with_key(rest)
    if path.is_dir():
        raise GeomkitError(
            f"{source}: {path} is a folder; name its weights file, or open_clip:{path} if it "
            f"holds {_CONFIG}"
        )
    config = model_config(name)
    settings: dict[str, Any] = {}
    if path.exists():
        weights, facts = read_weights(path, key=key)
        refuse_transformers(weights, source, path)
        facts["preprocess_from"] = "open_clip's defaults for an architecture"
        facts["notes"] += assumed_activation(config, name, rest, path)
        facts["notes"] += assumed_preprocessing(name)
    elif (tag := tag_of(name, rest)) is not None:
        import open_clip

        settings = open_clip.get_pretrained_cfg(name, tag)
        if settings.get("quick_gelu") and not config.get("quick_gelu"):
            # open_clip warns and computes another function than the one that was trained.
            config["quick_gelu"] = True
        weights, facts = read_weights(_tag_file(settings, name, tag, download))
        facts |= {"weights": f"pretrained tag {tag}", "preprocess_from": f"open_clip's tag {tag}"}
    else:
        raise GeomkitError(
            f"{source}: no file '{rest}', and no weights of that name{or_tags(name)}"
        )
    facts = {"architecture": name, **facts}
    return _opened(config, weights, settings, facts, source, download, what=name)


def _no_architecture(place: str, source: str) -> GeomkitError:
    path = Path(place.rpartition("#")[0] or place)
    if place.startswith(HUB):
        return GeomkitError(f"{source}: no folder{hub_hint(place)}")
    if path.is_dir():
        return GeomkitError(f"{source}: no {_CONFIG} in the folder{hint(path)}")
    if path.is_file():
        return GeomkitError(
            f"{source}: which architecture? Name it before the file, as open_clip:ViT-B-32/{place}"
        )
    name = place.partition("/")[0]
    return unknown_name("model", name, model_names(), see="open_clip.list_models()")


def _from_folder(folder: Path, source: str, download: bool) -> Checkpoint:
    whole = read_json(folder / _CONFIG)
    config: Any = whole.get("model_cfg")
    check_config(config, str(folder / _CONFIG))
    files = sorted(
        p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt", ".pth")
    )
    preferred = [folder / n for n in _PREFERRED if (folder / n) in files]
    if not preferred and len(files) != 1:
        found = ", ".join(p.name for p in files) or "none"
        raise GeomkitError(f"{source}: expected {_PREFERRED[0]} in it, found weights: {found}")
    file = (preferred or files)[0]
    weights, facts = read_weights(file)
    refuse_transformers(weights, source, file)
    settings = whole.get("preprocess_cfg") or {}
    check_schema(settings, dict, f"{folder / _CONFIG}: preprocess_cfg")
    facts["weights"] = file.name
    facts["preprocess_from"] = _CONFIG if settings else "open_clip's defaults; the folder has none"
    return _opened(config, weights, settings, facts, source, download, folder=folder)


def _opened(
    config: ModelConfig,
    weights: dict[str, Tensor],
    settings: dict[str, Any],
    facts: dict[str, Any],
    source: str,
    download: bool,
    *,
    what: str = "the model of its config",
    folder: Path | None = None,
) -> Checkpoint:
    import torch

    _find_text_model(config["text_cfg"], folder, source, download)
    tokenizer = _tokenizer(config, folder, source, download)

    def open_one(found: dict[str, Tensor], facts: dict[str, Any]) -> Checkpoint:
        own, found = copy.deepcopy(config), _current_names(found, config)
        notes = [*facts["notes"], *fit_sizes(own, found)]
        if "logit_bias" in found and own.get("init_logit_bias") is None:
            # Trained with open_clip's --siglip, which adds it to any architecture.
            own["init_logit_bias"] = found["logit_bias"].item()
        elif "logit_bias" not in found and own.get("init_logit_bias") is not None:
            found["logit_bias"] = torch.zeros(())
            notes.append("logit bias 0 assumed: its model has one, its weights do not")
        model = fitted(own, found, source, what=what)
        preprocess = _preprocess(own, model, settings, source)
        length = own["text_cfg"].get("context_length", tokenizer.context_length)
        words = replace(tokenizer, context_length=length)
        meta = {**facts, "notes": notes}
        return Checkpoint(model, "open_clip", source, own, preprocess, words, meta)

    return open_fitting(weights, facts, source, open_one)


def _preprocess(
    config: ModelConfig, model: TwoEncoder, settings: dict[str, Any], source: str
) -> Preprocess:
    """open_clip's defaults, with what a tag or a folder says, and the image encoder's own size."""
    size = getattr(model.clip.visual, "image_size", None) or config["vision_cfg"]["image_size"]
    keys = ("mean", "std", "interpolation", "resize_mode", "fill_color")
    said = {key: settings[key] for key in keys if settings.get(key) is not None}
    said |= {key: list(map(float, said[key])) for key in ("mean", "std") if key in said}
    if said.get("interpolation") == "random":  # in training; open_clip evaluates with bicubic
        said["interpolation"] = "bicubic"
    usual = Preprocess.for_model({"vision_cfg": {"image_size": size}}).explicit()
    return Preprocess.from_dict({**usual.as_dict(), **said}, where=f"{source}: preprocess_cfg")


def _current_names(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Weights with either layout of the text encoder, under the names that this config has."""
    custom = config.get("custom_text") or "hf_model_name" in config["text_cfg"]
    old = ("text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final")
    if custom and "text_projection" in weights:
        return {(f"text.{k}" if k.startswith(old) else k): v for k, v in weights.items()}
    if not custom and "text.positional_embedding" in weights:
        return {k.removeprefix("text."): v for k, v in weights.items()}
    return weights


def _tag_file(settings: dict[str, Any], name: str, tag: str, download: bool) -> Path:
    """The weights of a tag: from open_clip's caches or, if allowed, from the network."""
    import open_clip

    if "file" in settings:
        return Path(settings["file"])
    if download:
        try:
            return Path(open_clip.download_pretrained(settings))
        except Exception as error:  # a network client can raise anything
            raise GeomkitError(
                f"open_clip:{name}/{tag}: not downloaded ({reason(error)})"
            ) from None
    with closed(), contextlib.suppress(Exception):
        if settings.get("hf_hub"):
            return Path(open_clip.download_pretrained({"hf_hub": settings["hf_hub"]}))
    kept = Path("~/.cache/clip").expanduser() / settings.get("url", "").rpartition("/")[2]
    if settings.get("url") and kept.is_file():
        return kept
    raise GeomkitError(f"open_clip:{name}/{tag}: not in the local cache; --download fetches it")


def _tokenizer(config: ModelConfig, folder: Path | None, source: str, download: bool) -> Tokenizer:
    text = config["text_cfg"]
    name = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    if not name or (folder is not None and has_tokenizer(folder)):
        return Tokenizer.for_model(config, folder=folder)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "*.model"]
    try:
        place = snapshot_download(name, allow_patterns=wanted, local_files_only=not download)
    except Exception as error:  # a network client can raise anything
        told = f"not downloaded ({reason(error)})"
        state = told if download else "not cached; --download fetches it"
        raise GeomkitError(f"{source}: its tokenizer '{name}' is {state}") from None
    return Tokenizer.for_model(config, folder=place)


def _find_text_model(
    text: dict[str, Any], folder: Path | None, source: str, download: bool
) -> None:
    """Name the folder for a text encoder of transformers whose config it holds, in place.

    Any other is in the local cache, or fetched into it if allowed.

    Raises:
        GeomkitError: If the config names a path, or it cannot be fetched.
    """
    name = text.get("hf_model_name")
    if not name:
        return
    if folder is not None and (folder / "config.json").is_file():
        text_model_config(folder / "config.json")
        text["hf_model_name"] = str(folder.absolute())
    elif not HUB_NAME.fullmatch(name):
        raise GeomkitError(
            f"{source}: its config names {name!r} as text encoder, a path; put the config.json of "
            "that encoder into the folder"
        )
    elif download:
        from huggingface_hub import hf_hub_download

        try:
            hf_hub_download(name, "config.json")
        except Exception as error:  # a network client can raise anything
            raise GeomkitError(
                f"{source}: its text encoder {name!r} is not downloaded ({reason(error)})"
            ) from None


KIND = CheckpointKind(
    "open_clip",
    "open_clip model",
    _open,
    ("open_clip:NAME/TAG", "open_clip:NAME/FILE", "open_clip:DIR"),
)
