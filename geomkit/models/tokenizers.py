"""From captions to token ids: open_clip's own byte pairs, or a tokenizer in a folder.

A tokenizer is described by a dictionary, which a checkpoint stores. ``name`` is either

- ``SimpleTokenizer``: open_clip's own, with ``context_length``;
- ``HFTokenizer``: what transformers reads from the folder ``path``, as open_clip's class of that
  name uses it, with ``context_length``, ``clean`` (``whitespace``, ``lower``, ``canonicalize`` or
  ``none``), ``mode``, ``strip_sep_token``, ``options`` (for transformers) and ``vocab_size``.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from geomkit.errors import GeomkitError, unknown_name

__all__ = ["TOKENIZERS", "folder_tokenizer", "tokenize", "tokenizer_config"]

TOKENIZERS = ("SimpleTokenizer", "HFTokenizer")
_CLEAN = ("whitespace", "lower", "canonicalize", "none")


def tokenizer_config(config: dict[str, Any], *, folder: str | Path | None = None) -> dict[str, Any]:
    """Which tokenizer a model takes; only open_clip's own needs no file.

    Args:
        config: open_clip's model config.
        folder: where the files of another tokenizer are.

    Raises:
        GeomkitError: if the architecture brings a tokenizer from a hub and no folder is given.
    """
    text = config["text_cfg"]
    name = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    context = text.get("context_length", 77)
    if not name:
        return {"name": "SimpleTokenizer", "context_length": context}
    if folder is None:
        raise GeomkitError(
            f"model: its tokenizer '{name}' would have to be downloaded; "
            "choose an architecture with open_clip's own tokenizer, such as tiny or ViT-B-32"
        )
    options = dict(text.get("tokenizer_kwargs") or {})
    return folder_tokenizer(
        folder,
        context_length=context,
        clean=options.pop("clean", "whitespace"),
        strip_sep_token=options.pop("strip_sep_token", False),
        mode=text.get("tokenizer_mode"),
        options=options,
        vocab_size=None if text.get("hf_model_name") else text.get("vocab_size"),
    )


def folder_tokenizer(
    folder: str | Path,
    *,
    context_length: int,
    clean: str,
    strip_sep_token: bool = False,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    vocab_size: int | None = None,
) -> dict[str, Any]:
    """The description of a tokenizer whose files lie in a folder; see the module's text."""
    return {
        "name": "HFTokenizer",
        "path": str(Path(folder).absolute()),
        "context_length": context_length,
        "clean": clean,
        "strip_sep_token": strip_sep_token,
        "mode": mode,
        "options": options or {},
        "vocab_size": vocab_size,
    }


def tokenize(captions: list[str], tokenizer: dict[str, Any]) -> Tensor:
    """Token ids of captions, shape ``(n, context_length)``, padded as the tokenizer pads.

    Args:
        captions: texts; what does not fit the context is cut, its end token kept.
        tokenizer: as :func:`tokenizer_config` describes it.

    Raises:
        GeomkitError: for an unknown tokenizer, one that cannot be read, or ids past the model's
            vocabulary.
    """
    name = tokenizer["name"]
    if name == "SimpleTokenizer":
        return _simple(tokenizer["context_length"])(list(captions))
    if name != "HFTokenizer":
        raise unknown_name("tokenizer", name, TOKENIZERS)
    if not captions:
        import torch

        return torch.zeros(0, tokenizer["context_length"], dtype=torch.long)
    tokens = _from_folder(json.dumps(tokenizer, sort_keys=True))(list(captions))
    limit = tokenizer.get("vocab_size")
    if limit is not None and int(tokens.max()) >= limit:
        raise GeomkitError(
            f"{tokenizer['path']}: its tokenizer gives id {int(tokens.max())}, the model knows "
            f"{limit}; it belongs to another model"
        )
    return tokens


@functools.cache
def _simple(context_length: int) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=context_length)


@functools.lru_cache(maxsize=4)
def _from_folder(description: str) -> Any:
    entry: dict[str, Any] = json.loads(description)
    path = Path(entry["path"])
    if not path.is_dir():
        raise GeomkitError(f"{path}: no such folder; it held the model's tokenizer")
    if entry["clean"] not in _CLEAN:
        raise unknown_name("way to clean captions", entry["clean"], _CLEAN)
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise GeomkitError(
            f"{path}: its tokenizer needs transformers; install geomkit[hf]"
        ) from None
    from open_clip.tokenizer import HFTokenizer

    try:
        tokenizer = HFTokenizer(
            str(path),
            context_length=entry["context_length"],
            clean="whitespace" if entry["clean"] == "none" else entry["clean"],
            strip_sep_token=entry["strip_sep_token"],
            tokenizer_mode=entry["mode"],
            **{**entry["options"], "local_files_only": True, "trust_remote_code": False},
        )
    except Exception as error:  # transformers raises what its readers raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise GeomkitError(f"{path}: its tokenizer cannot be read ({reason})") from None
    if entry["clean"] == "none":
        tokenizer.clean_fn = str
    if tokenizer.tokenizer.pad_token is None:
        raise GeomkitError(f"{path}: its tokenizer has no token to pad with")
    return tokenizer
