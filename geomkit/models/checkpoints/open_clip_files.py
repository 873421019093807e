"""``open_clip:…``: pretrained tags, training checkpoints, and folders of open_clip's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from geomkit.errors import GeomkitError, unknown_name
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.fit import fitted
from geomkit.models.checkpoints.folder_inputs import as_written, has_tokenizer, read_json
from geomkit.models.checkpoints.weights import read_weights
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer
from geomkit.models.two_encoder import OWN_CONFIGS, model_config, model_names

__all__ = ["open_open_clip"]

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


def open_open_clip(words: str, *, source: str, download: bool = False) -> Checkpoint:
    """A model of open_clip's.

    Args:
        words: ``NAME/TAG``, one of open_clip's pretrained weights; ``NAME/PATH``, weights for an
            architecture of open_clip's (or ``tiny``, ``nano``), of a training checkpoint
            ``PATH#KEY`` reads the entry KEY, such as ``state_dict_ema``; or a folder with
            ``open_clip_config.json``.
        source: the SOURCE that names it.
        download: let a tag be fetched that is not in the local cache.

    Raises:
        GeomkitError: if there is no such model or file, the weights do not fit, or they would have
            to be downloaded.
    """
    if (Path(words) / _CONFIG).is_file():
        return _from_folder(Path(words), source, download)
    name, _, rest = words.partition("/")
    if name not in model_names():
        if Path(words).is_dir():
            raise GeomkitError(f"{source}: no {_CONFIG} in the folder")
        raise unknown_name("model", name, model_names())
    if not rest:
        raise GeomkitError(f"{source}: which weights? Give {name}/PATH{_or_tags(name)}")
    path, key = Path(rest), None
    if not path.exists() and "#" in rest:
        before, _, key = rest.rpartition("#")
        path = Path(before)
    if path.is_dir():
        raise GeomkitError(
            f"{source}: {path} is a folder; name its weights file, or open_clip:{path} if it "
            f"holds {_CONFIG}"
        )
    if path.exists():
        return _from_file(name, path, key, source, download)
    tag = _tag(name, rest)
    if tag is not None:
        return _from_tag(name, tag, source, download)
    raise GeomkitError(f"{source}: no file '{rest}', and no weights of that name{_or_tags(name)}")


def _from_file(name: str, path: Path, key: str | None, source: str, download: bool) -> Checkpoint:
    config = model_config(name)
    weights, facts = read_weights(path, key=key)
    facts["preprocess_from"] = "open_clip's defaults for an architecture"
    return _loaded(config, weights, {}, facts, name=name, source=source, download=download)


def _from_tag(name: str, tag: str, source: str, download: bool) -> Checkpoint:
    import open_clip

    settings: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    config = model_config(name)
    if settings.get("quick_gelu") and not config.get("quick_gelu"):
        # open_clip warns and computes another function than the one that was trained.
        config["quick_gelu"] = True
    weights, _ = read_weights(_tag_file(settings, name, tag, download))
    facts = {"weights": f"pretrained tag {tag}", "preprocess_from": f"open_clip's tag {tag}"}
    return _loaded(config, weights, settings, facts, name=name, source=source, download=download)


def _from_folder(folder: Path, source: str, download: bool) -> Checkpoint:
    with as_written(folder / _CONFIG):
        return _folder_model(folder, read_json(folder / _CONFIG), source, download)


def _folder_model(folder: Path, whole: dict[str, Any], source: str, download: bool) -> Checkpoint:
    config = whole.get("model_cfg")
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise GeomkitError(f"{folder / _CONFIG}: no whole model_cfg in it")
    files = sorted(
        p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".pt", ".pth")
    )
    preferred = [folder / n for n in _PREFERRED if (folder / n) in files]
    if not preferred and len(files) != 1:
        found = ", ".join(p.name for p in files) or "none"
        raise GeomkitError(f"{source}: expected {_PREFERRED[0]} in it, found weights: {found}")
    file = (preferred or files)[0]
    weights, facts = read_weights(file)
    facts["weights"] = file.name
    settings = whole.get("preprocess_cfg") or {}
    facts["preprocess_from"] = _CONFIG if settings else "open_clip's defaults; the folder has none"
    return _loaded(
        config, weights, settings, facts, source=source, download=download, folder=folder
    )


def _loaded(
    config: dict[str, Any],
    weights: dict[str, Tensor],
    settings: dict[str, Any],
    facts: dict[str, Any],
    *,
    source: str,
    download: bool,
    name: str | None = None,
    folder: Path | None = None,
) -> Checkpoint:
    weights = _in_todays_names(weights, config)
    if "logit_bias" in weights and config.get("init_logit_bias") is None:
        # Trained with open_clip's --siglip, which adds it to any architecture.
        config["init_logit_bias"] = weights["logit_bias"].item()
    tokenizer = _tokenizer(config, folder, source, download)
    with _network(download):
        model = fitted(config, weights, source, what=name or "the model of its config")
    if name:
        facts = {"architecture": name, **facts}
    return Checkpoint(
        model, "open_clip", source, config, _preprocess(config, model, settings), tokenizer, facts
    )


def _preprocess(config: dict[str, Any], model: Any, settings: dict[str, Any]) -> Preprocess:
    """open_clip's defaults, what a tag or a folder says over them, and the tower's own size."""
    size = getattr(model.clip.visual, "image_size", None) or config["vision_cfg"]["image_size"]
    found = Preprocess.for_model({"vision_cfg": {"image_size": size}}).explicit().as_dict()
    for key in ("mean", "std", "interpolation", "resize_mode", "fill_color"):
        if settings.get(key) is not None:
            value = settings[key]
            found[key] = list(map(float, value)) if key in ("mean", "std") else value
    if found["interpolation"] == "random":  # of training; open_clip evaluates with bicubic
        found["interpolation"] = "bicubic"
    return Preprocess.from_dict(found)


def _in_todays_names(weights: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """Weights of either layout of the text tower, under the one this config has."""
    custom = config.get("custom_text") or "hf_model_name" in config["text_cfg"]
    old = ("text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final")
    if custom and "text_projection" in weights:
        return {(f"text.{k}" if k.startswith(old) else k): v for k, v in weights.items()}
    if not custom and "text.positional_embedding" in weights:
        return {k.removeprefix("text."): v for k, v in weights.items()}
    return weights


def _tag(name: str, word: str) -> str | None:
    """open_clip's spelling of a tag, if it lists it for an architecture."""
    import open_clip

    word = word.lower().replace("-", "_")
    return word if name not in OWN_CONFIGS and open_clip.is_pretrained_cfg(name, word) else None


def _or_tags(name: str) -> str:
    import open_clip

    tags = [] if name in OWN_CONFIGS else open_clip.list_pretrained_tags_by_model(name)
    return f" (open_clip has {', '.join(tags)})" if tags else ""


def _tag_file(settings: dict[str, Any], name: str, tag: str, download: bool) -> Path:
    """The weights of a tag: from open_clip's caches, or, if allowed, from the network."""
    import open_clip

    if "file" in settings:
        return Path(settings["file"])
    if download:
        try:
            return Path(open_clip.download_pretrained(settings))
        except Exception as error:  # whatever the network makes of it
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise GeomkitError(f"open_clip:{name}/{tag}: not downloaded ({reason})") from None
    with _network(False), contextlib.suppress(Exception):
        if settings.get("hf_hub"):
            return Path(open_clip.download_pretrained({"hf_hub": settings["hf_hub"]}))
    kept = Path("~/.cache/clip").expanduser() / settings.get("url", "").rpartition("/")[2]
    if settings.get("url") and kept.is_file():
        return kept
    raise GeomkitError(f"open_clip:{name}/{tag}: not in the local cache; --download fetches it")


def _tokenizer(
    config: dict[str, Any], folder: Path | None, source: str, download: bool
) -> Tokenizer:
    text = config["text_cfg"]
    name = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    if not name or (folder is not None and has_tokenizer(folder)):
        return Tokenizer.for_model(config, folder=folder)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "*.model"]
    try:
        place = snapshot_download(name, allow_patterns=wanted, local_files_only=not download)
    except Exception as error:  # whatever the hub's client makes of it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        state = f"not downloaded ({reason})" if download else "not cached; --download fetches it"
        raise GeomkitError(f"{source}: its tokenizer '{name}' is {state}") from None
    return Tokenizer.for_model(config, folder=place)


@contextlib.contextmanager
def _network(allowed: bool) -> Iterator[None]:
    """Keep the hub's client, which open_clip and transformers use, from asking anybody."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not allowed
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
