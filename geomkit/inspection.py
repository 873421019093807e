"""What a SOURCE is: a model's architecture, inputs and weights, or the shape of embeddings.

No data is needed, and nothing is computed but a checksum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._core.files import from_home
from geomkit.embeddings.formats import read
from geomkit.errors import GeomkitError
from geomkit.models.architectures import OWN_CONFIGS, ModelConfig
from geomkit.models.checkpoints.checkpoint import Checkpoint
from geomkit.models.checkpoints.fit import is_plain
from geomkit.models.checkpoints.kinds import find_kind, kinds, open_model
from geomkit.models.checkpoints.trained_run import TrainedRun, load_run
from geomkit.models.open_clip_source import config_classes, configs
from geomkit.models.tokenizers import VOCABULARY

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SCHEMA_VERSION", "architecture_name", "describe", "describe_model"]

SCHEMA_VERSION = 1
"""Version of the JSON of ``geomkit inspect``."""
_LARGEST_LOG = 88.0
"""exp of it is the largest number in float32."""
# Entries of a config that do not change the function computed, or only its fresh weights.
_IRRELEVANT = ("timm_model_pretrained", "hf_model_pretrained", "output_tokens", "hf_tokenizer_name",
               "tokenizer_kwargs", "tokenizer_mode", "pad_id", "patch_dropout", "timm_drop",
               "timm_drop_path")  # fmt: skip


def describe(
    source: str, *, download: bool = False, columns: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return what a SOURCE is, as one JSON object.

    Args:
        source: A model or embeddings; see :func:`geomkit.extraction.load.load_source`.
        download: Whether a model's files may be downloaded.
        columns: Name of the array of each modality, for embeddings that name them otherwise.

    Returns:
        ``schema_version``, ``source``, ``kind`` and ``what``; for a model the entries of
        :func:`describe_model`; for embeddings ``n`` images, ``m`` captions, ``dim``, ``dtype`` (as
        stored), ``shards``, ``ids`` and ``image_index`` (whether the file has them),
        ``modalities``, ``reading`` (how the file was understood) and ``notes`` (what was assumed,
        and what is not used).

    Raises:
        GeomkitError: If there is no such file, or it cannot be read.

    Example:
        >>> import numpy as np, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "e.npy")
        >>> np.save(path, np.ones((2, 5, 3), np.float16))
        >>> found = describe(path)
        >>> found["kind"], found["n"], found["dim"], found["dtype"]
        ('embeddings', 5, 3, ['float16'])
    """
    source = from_home(source)
    kind = find_kind(source)
    if kind is not None and kind.name == "geomkit":
        return _of_run(load_run(source), source)
    if kind is not None:
        return describe_model(open_model(source, download=download))
    loaded = read(Path(source), columns)
    parts = [loaded.image, *filter(None, [loaded.text]), *loaded.others.values()]
    dims = [shards[0].shape[1] for shards in parts]
    return {
        "schema_version": SCHEMA_VERSION,
        "source": source,
        "kind": "embeddings",
        "what": "embeddings",
        "n": sum(shard.shape[0] for shard in loaded.image),
        "m": sum(shard.shape[0] for shard in loaded.text),
        "dim": dims[0] if len(set(dims)) == 1 else dims,
        "dtype": sorted({shard.dtype for shards in parts for shard in shards}),
        "shards": len(loaded.image),
        "ids": bool(loaded.ids),
        "image_index": loaded.image_index is not None,
        "modalities": [name for name in (*loaded.modalities, *loaded.others) if name],
        "reading": loaded.reading,
        "notes": list(loaded.notes),
    }


def _of_run(run: TrainedRun, source: str) -> dict[str, Any]:
    """The description of a geomkit checkpoint: of a plain model, from its weights alone."""
    if not is_plain(run.model_config, run.state_dict):
        return describe_model(open_model(source))
    checkpoint = run.around(None, source)
    checkpoint.check_inputs()
    return _described(checkpoint, "CLIP", run.state_dict, run.state_dict)


def describe_model(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a model is, as one JSON object.

    Args:
        checkpoint: An opened model.

    Returns:
        ``schema_version``, ``source``, ``kind``, ``what``, ``architecture`` (``name`` if known,
        ``class``, and the size of both encoders), ``dim``, ``temperature``, ``logit_bias``,
        ``preprocess``, ``tokenizer``, ``parameters`` (``image``, ``text``, ``all``),
        ``weights_sha256``, ``model_config``, ``meta`` (what else the file says), ``notes`` (what
        was assumed or left out).
    """
    clip = checkpoint.model.clip
    parameters = dict(clip.named_parameters())
    return _described(checkpoint, type(clip).__name__, clip.state_dict(), parameters)


def _described(
    checkpoint: Checkpoint,
    name: str,
    weights: dict[str, Tensor],
    parameters: Mapping[str, Tensor],
) -> dict[str, Any]:
    """The description of a model of a class with this name; what of its weights is trained."""
    from geomkit.models.checkpoints.weights import weights_sha256

    config = checkpoint.model_config
    counts = {"image": 0, "text": 0, "all": 0}
    for key, parameter in parameters.items():
        counts["all"] += parameter.numel()
        if key not in ("logit_scale", "logit_bias"):
            counts["image" if key.startswith("visual.") else "text"] += parameter.numel()
    bias = weights.get("logit_bias")
    vision, text = config["vision_cfg"], config["text_cfg"]
    inner = vision.get("timm_kwargs") or {}
    return {
        "schema_version": SCHEMA_VERSION,
        "source": checkpoint.source,
        "kind": checkpoint.kind,
        "what": kinds()[checkpoint.kind].what,
        "architecture": {
            "name": checkpoint.meta.get("architecture") or architecture_name(config),
            "class": name,
            "quick_gelu": bool(config.get("quick_gelu")),
            "activation": _activation(config),
            "image": {
                "model": None if inner else vision.get("timm_model_name"),
                "width": inner.get("embed_dim", vision.get("width")),
                "layers": inner.get("depth", vision.get("layers")),
                "heads": inner.get("num_heads", _heads(vision)),
                "patch_size": inner.get("patch_size", vision.get("patch_size")),
                "image_size": checkpoint.preprocess.size,
            },
            "text": {
                "model": text.get("hf_model_name"),
                **{key: text.get(key) for key in ("width", "layers", "heads")},
                "context_length": checkpoint.tokenizer.context_length,
                "vocab_size": text.get("vocab_size"),
            },
        },
        "dim": config["embed_dim"],
        "temperature": _temperature(checkpoint.source, weights["logit_scale"].item()),
        "logit_bias": None if bias is None else bias.item(),
        "preprocess": checkpoint.preprocess.as_dict(),
        "tokenizer": checkpoint.tokenizer.as_dict(),
        "parameters": counts,
        "weights_sha256": weights_sha256(weights),
        "model_config": config,
        "meta": checkpoint.meta,
        "notes": checkpoint.notes,
    }


def _temperature(source: str, log_scale: float) -> float:
    if not abs(log_scale) < _LARGEST_LOG:
        raise GeomkitError(
            f"{source}: its logit scale, exp({log_scale:g}), is none that a model has; the weights "
            "are damaged"
        )
    return math.exp(-log_scale)


def _heads(vision: Mapping[str, Any]) -> int | None:
    """Number of attention heads in a block of open_clip's own image transformer."""
    tower = config_classes()[0](**{k: v for k, v in vision.items() if k != "timm_kwargs"})
    if tower.timm_model_name or not isinstance(tower.layers, int):
        return None
    heads: int = tower.width // tower.head_width
    return heads


def _activation(config: ModelConfig) -> str:
    """The activation between the layers of both encoders."""
    found = {}
    for side, part, foreign in (
        ("image", config["vision_cfg"], "timm_model_name"),
        ("text", config["text_cfg"], "hf_model_name"),
    ):
        named = (part.get("timm_kwargs") or {}).get("act_layer")
        tanh = (part.get("act_kwargs") or {}).get("approximate") == "tanh"
        own = "QuickGELU" if config.get("quick_gelu") else "GELU (tanh)" if tanh else "GELU"
        found[side] = f"{named or 'its own'} ({part[foreign]})" if part.get(foreign) else own
    if len(set(found.values())) == 1:
        return found["image"]
    return f"{found['image']} image, {found['text']} text"


def architecture_name(config: ModelConfig) -> str | None:
    """The name under which geomkit or open_clip knows an architecture, whatever its dimension.

    >>> from geomkit.models import model_config
    >>> architecture_name(model_config("tiny", dim=3))
    'tiny'
    """
    wanted = _essence(config)
    # The vocabulary of geomkit's own follows the captions that they were trained on.
    whole = {**config["text_cfg"], "vocab_size": VOCABULARY}
    wanted_own = _essence({**config, "text_cfg": whole})
    matches = []
    for name, other in {**OWN_CONFIGS, **configs()}.items():
        if _essence(other) == (wanted_own if name in OWN_CONFIGS else wanted):
            matches.append((other["embed_dim"] != config["embed_dim"], len(name), name))
    return min(matches)[2] if matches else None


def _essence(config: ModelConfig) -> dict[str, Any]:
    """A config with every default written out, without irrelevant entries."""
    vision_kind, text_kind, _ = config_classes()
    vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
    extra = vision.pop("timm_kwargs", None)
    found: dict[str, Any] = {"timm_kwargs": extra, "multimodal": config.get("multimodal_cfg")}
    for part, cfg, kind in (("vision", vision, vision_kind), ("text", text, text_kind)):
        whole = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(kind(**cfg)).items()}
        if whole.get("pool_type") != "eos":
            whole.pop("eos_id", None)
        found[part] = {k: v or None for k, v in whole.items() if k not in _IRRELEVANT}
    found["quick_gelu"] = bool(config.get("quick_gelu"))
    found["bias"] = config.get("init_logit_bias") is not None
    return found
