"""What a SOURCE is: a model's architecture, inputs and weights, or the shape of embeddings.

No data is needed and nothing is computed but a checksum.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._core.files import is_torch_file
from geomkit.embeddings.formats import read
from geomkit.embeddings.formats.pt import of_content
from geomkit.embeddings.reading import Loaded
from geomkit.sources import has_model_prefix, open_source

if TYPE_CHECKING:
    from geomkit.models.checkpoints import Checkpoint

__all__ = ["SCHEMA_VERSION", "architecture_name", "describe", "describe_model"]

SCHEMA_VERSION = 1
_KINDS = {
    "geomkit": "checkpoint of geomkit's",
    "open_clip": "weights of an open_clip model",
    "hf": "folder of transformers'",
    "openai": "CLIP in OpenAI's names",
    "paper": "checkpoint of the paper's code",
    "embeddings": "embeddings",
}
# What a config may say without changing the function that is computed, or only where it starts.
_NO_MATTER = ("timm_model_pretrained", "hf_model_pretrained", "output_tokens", "hf_tokenizer_name",
              "tokenizer_kwargs", "tokenizer_mode", "pad_id", "patch_dropout", "timm_drop",
              "timm_drop_path")  # fmt: skip


def describe(source: str, *, download: bool = False) -> dict[str, Any]:
    """What a SOURCE is, as one object of plain values.

    Args:
        source: a model or embeddings; see :mod:`geomkit.sources`.
        download: let a model's files be downloaded.

    Returns:
        ``schema_version``, ``source``, ``kind``, ``what``; of a model what
        :func:`describe_model` says; of embeddings ``n`` images, ``m`` texts, ``dim``, ``dtype``
        (as stored), ``files``.

    Raises:
        GeomkitError: as :func:`geomkit.sources.load_source`.
    """
    path = Path(source)
    if has_model_prefix(source) or not path.exists():
        return describe_model(open_source(source, download=download))
    if path.is_dir() or not is_torch_file(path):
        return _embeddings(source, read(path))
    from geomkit.models.checkpoints import FORMAT, read_torch_file
    from geomkit.models.checkpoints.opening import own_model
    from geomkit.models.checkpoints.torchscript import is_torchscript

    if is_torchscript(path):
        open_source(source)  # says what it is
    content = read_torch_file(path)
    if not isinstance(content, dict) or content.get("format") == FORMAT:
        return describe_model(own_model(content, source))
    return _embeddings(source, of_content(path, content))


def describe_model(loaded: Checkpoint) -> dict[str, Any]:
    """What a model is.

    Returns:
        ``schema_version``, ``source``, ``kind``, ``what``, ``architecture`` (``name`` where known,
        ``class``, and the size of both towers), ``dim``, ``temperature``, ``logit_bias``,
        ``preprocess``, ``tokenizer``, ``parameters`` (``image``, ``text``, ``all``),
        ``weights_sha256``, ``model_config``, ``meta`` (what else the file says).
    """
    from geomkit.models.checkpoints import weights_sha256

    clip: Any = loaded.model.clip
    config = loaded.model_config
    counts = {"image": 0, "text": 0, "all": 0}
    for name, parameter in clip.named_parameters():
        counts["all"] += parameter.numel()
        if name not in ("logit_scale", "logit_bias"):
            counts["image" if name.startswith("visual.") else "text"] += parameter.numel()
    bias = getattr(clip, "logit_bias", None)
    vision, text = config["vision_cfg"], config["text_cfg"]
    inner = vision.get("timm_kwargs") or {}
    return {
        "schema_version": SCHEMA_VERSION,
        "source": loaded.source,
        "kind": loaded.kind,
        "what": _KINDS[loaded.kind],
        "architecture": {
            "name": loaded.meta.get("architecture") or architecture_name(config),
            "class": type(clip).__name__,
            "quick_gelu": bool(config.get("quick_gelu")),
            "image": {
                "model": None if inner else vision.get("timm_model_name"),
                "width": inner.get("embed_dim", vision.get("width")),
                "layers": inner.get("depth", vision.get("layers")),
                "patch_size": inner.get("patch_size", vision.get("patch_size")),
                "image_size": loaded.preprocess.size,
            },
            "text": {
                "model": text.get("hf_model_name"),
                "width": text.get("width"),
                "layers": text.get("layers"),
                "heads": text.get("heads"),
                "context_length": loaded.tokenizer.context_length,
                "vocab_size": text.get("vocab_size"),
            },
        },
        "dim": config["embed_dim"],
        "temperature": math.exp(-clip.logit_scale.item()),
        "logit_bias": None if bias is None else bias.item(),
        "preprocess": loaded.preprocess.as_dict(),
        "tokenizer": loaded.tokenizer.as_dict(),
        "parameters": counts,
        "weights_sha256": weights_sha256(clip.state_dict()),
        "model_config": config,
        "meta": loaded.meta,
    }


def architecture_name(config: dict[str, Any]) -> str | None:
    """The name under which geomkit or open_clip knows an architecture, whatever its dimension.

    >>> from geomkit.models.two_encoder import model_config
    >>> architecture_name(model_config("tiny", dim=3))
    'tiny'
    """
    import open_clip

    from geomkit.models.two_encoder import OWN_CONFIGS

    wanted = _essence(config)
    known = {**OWN_CONFIGS, **dict.fromkeys(open_clip.list_models())}
    matches = []
    for name, own in known.items():
        other = own or open_clip.get_model_config(name)
        if _essence(other) == wanted:
            matches.append((other["embed_dim"] != config["embed_dim"], len(name), name))
    return min(matches)[2] if matches else None


def _essence(config: dict[str, Any]) -> dict[str, Any]:
    """A config with every default spelt out and nothing that does not matter."""
    from dataclasses import asdict

    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
    extra = vision.pop("timm_kwargs", None)
    found: dict[str, Any] = {"timm_kwargs": extra, "multimodal": config.get("multimodal_cfg")}
    for part, cfg, kind in (("vision", vision, CLIPVisionCfg), ("text", text, CLIPTextCfg)):
        whole = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(kind(**cfg)).items()}
        if whole.get("pool_type") != "eos":
            whole.pop("eos_id", None)
        found[part] = {k: v or None for k, v in whole.items() if k not in _NO_MATTER}
    found["quick_gelu"] = bool(config.get("quick_gelu"))
    found["bias"] = config.get("init_logit_bias") is not None
    return found


def _embeddings(source: str, loaded: Loaded) -> dict[str, Any]:
    shards = [*loaded.image, *loaded.text]
    dims = [loaded.image[0].shape[1], loaded.text[0].shape[1]]
    return {
        "schema_version": SCHEMA_VERSION,
        "source": source,
        "kind": "embeddings",
        "what": _KINDS["embeddings"],
        "n": sum(shard.shape[0] for shard in loaded.image),
        "m": sum(shard.shape[0] for shard in loaded.text),
        "dim": dims[0] if len(set(dims)) == 1 else dims,
        "dtype": sorted({shard.dtype for shard in shards}),
        "shards": len(loaded.image),
        "ids": bool(loaded.ids),
        "image_index": loaded.image_index is not None,
    }
