"""What a folder that transformers saved says about the images and captions its model takes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from geomkit._core.schema import once
from geomkit.errors import GeomkitError, reason
from geomkit.models.checkpoints.reading import reading
from geomkit.models.preprocess import Preprocess
from geomkit.models.tokenizers import Tokenizer

__all__ = ["as_written", "folder_preprocess", "has_tokenizer", "read_json", "tokenizer_in"]

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Names of Pillow's numbers, which the file stores."""
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model", "vocab.txt")


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file.

    Raises:
        GeomkitError: If it cannot be read or is no object.
    """
    with reading(path, "no valid JSON"):
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    if not isinstance(content, dict):
        raise GeomkitError(f"{path}: expected a JSON object")
    return content


@contextlib.contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Turn the exception that a value of a wrong type causes into an error that names the file."""
    try:
        yield
    except GeomkitError:
        raise
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise GeomkitError(
            f"{path}: a value in it is not of the right type ({reason(error)})"
        ) from None


def folder_preprocess(folder: Path, image_size: int) -> Preprocess:
    """Return the preprocessing that ``preprocessor_config.json`` describes.

    Args:
        folder: Folder that also holds the model.
        image_size: Side of the images that the model takes, in px.

    Raises:
        GeomkitError: If there is no such file, or it describes something that is not supported.
    """
    path = folder / "preprocessor_config.json"
    if path.exists():
        config = read_json(path)
    elif (folder / "processor_config.json").exists():
        path = folder / "processor_config.json"
        config = read_json(path).get("image_processor") or {}
    else:
        raise GeomkitError(
            f"{folder}: no preprocessor_config.json in it, so its preprocessing is unknown; "
            "put the file that came with the model there"
        )
    with as_written(path):
        return _preprocess(config, path, image_size)


def _preprocess(config: dict[str, Any], path: Path, image_size: int) -> Preprocess:
    normal = config.get("do_normalize", True)
    for key in ("size", "resample", *(("image_mean", "image_std") if normal else ())):
        if key not in config:
            raise GeomkitError(f"{path}: says nothing about '{key}'; add it")
    if not config.get("do_resize", True):
        raise GeomkitError(f"{path}: do_resize is off; expected images resized to {image_size} px")
    scaled = config.get("do_rescale", True)
    if not scaled or abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise GeomkitError(f"{path}: expected pixels rescaled by 1/255")
    if config["resample"] not in _RESAMPLE:
        raise GeomkitError(f"{path}: resample {config['resample']} is not supported")
    size, mode = _geometry(config, path)
    if size != image_size:
        raise GeomkitError(f"{path}: gives images of {size} px, the model takes {image_size}")
    said = {
        "size": size,
        "mean": list(map(float, config["image_mean"])) if normal else [0.0, 0.0, 0.0],
        "std": list(map(float, config["image_std"])) if normal else [1.0, 1.0, 1.0],
        "interpolation": _RESAMPLE[config["resample"]],
        "resize_mode": mode,
    }
    return Preprocess.from_dict(
        {**Preprocess(size).as_dict(), **said}, where=f"{path}: "
    ).explicit()


def _geometry(config: dict[str, Any], path: Path) -> tuple[int, str]:
    """The side of the final image in px, and the resize mode."""
    size: Any = config["size"]
    crop: Any = config.get("crop_size")
    cropped = config.get("do_center_crop", crop is not None)
    if isinstance(size, int):  # old versions: CLIP's is the short side
        kind = str(config.get("image_processor_type") or config.get("feature_extractor_type"))
        size = {"height": size, "width": size} if "Siglip" in kind else {"shortest_edge": size}
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    middle = crop.get("height") if cropped and isinstance(crop, dict) else None
    if cropped and (middle is None or middle != crop.get("width")):
        raise GeomkitError(f"{path}: crop_size {crop}: expected a square")
    if size.get("shortest_edge"):
        side, mode = size["shortest_edge"], "shortest"
        if not cropped:
            raise GeomkitError(f"{path}: resizes the short side and crops nothing; no square")
    elif size.get("height") and size.get("height") == size.get("width"):
        side, mode = size["height"], "squash"
    else:
        raise GeomkitError(f"{path}: size {size}: expected shortest_edge, or height = width")
    if cropped and middle != side:
        raise GeomkitError(
            f"{path}: resizes to {side} px and crops to {middle}; only equal sizes are supported"
        )
    return int(side), mode


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder holds a tokenizer's files."""
    return any((folder / name).exists() for name in _TOKENIZER_FILES)


def tokenizer_in(
    folder: Path, *, context_length: int, vocab_size: int, kind: str
) -> tuple[Tokenizer, list[str]]:
    """Return the tokenizer of a folder: open_clip's own if it is the same in everything.

    Args:
        folder: Folder with ``vocab.json`` and ``merges.txt``, ``tokenizer.json``, or any other
            tokenizer file that transformers reads.
        context_length: Number of tokens that the model takes.
        vocab_size: Number of token ids that the model knows.
        kind: transformers' ``model_type``.

    Returns:
        The tokenizer, and what was assumed.

    Raises:
        GeomkitError: If there is no tokenizer, or its files are damaged.
    """
    if not has_tokenizer(folder):
        raise GeomkitError(
            f"{folder}: no tokenizer in it; put tokenizer.json, or vocab.json and merges.txt, there"
        )
    with as_written(folder):
        own = _is_open_clips_own(folder)
    if own:
        return Tokenizer(context_length=context_length), []
    name = str(_optional(folder / "tokenizer_config.json").get("tokenizer_class"))
    gemma = name.startswith("Gemma") or vocab_size == _GEMMA_VOCABULARY
    normalizer = _optional(folder / "tokenizer.json").get("normalizer")
    clean, notes = "none", []
    if kind == "siglip" and gemma and '"Lowercase"' not in json.dumps(normalizer):
        clean = "lowercase"
        notes.append(
            f"captions are put in lower case, as SigLIP 2 was trained; its tokenizer ({name}) does "
            "not do it"
        )
    tokenizer = Tokenizer.in_folder(
        folder, context_length=context_length, clean=clean, vocab_size=vocab_size
    )
    return tokenizer, notes


_GEMMA_VOCABULARY = 256_000
_START, _END = "<|startoftext|>", "<|endoftext|>"
_SPECIAL = {_START: 49406, _END: 49407}
_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_SPLITS = (_SPLIT, rf"<\|startoftext\|>|<\|endoftext\|>|{_SPLIT}")
_BEFORE = {
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ],
    },
    "post_processor": {
        "type": "RobertaProcessing",
        "sep": [_END, _SPECIAL[_END]],
        "cls": [_START, _SPECIAL[_START]],
        "trim_offsets": False,
        "add_prefix_space": False,
    },
}
"""What tokenizers' library says of CLIP's tokenizer, as transformers has always written it."""
_USUAL: dict[str, tuple[Any, ...]] = {
    "tokenizer_class": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "do_lower_case": (True,),
    "add_prefix_space": (False,),
    "padding_side": ("right",),
    "truncation_side": ("right",),
    "bos_token": (_START,),
    "cls_token": (_START,),
    "eos_token": (_END,),
    "sep_token": (_END,),
    "unk_token": (_END,),
    "additional_special_tokens": ([],),
    "extra_special_tokens": ([], {}),
}
"""Settings that change token ids, with the values that leave them as open_clip's tokenizer has them
(``None`` and a missing one do, too)."""


def _is_open_clips_own(folder: Path) -> bool:
    """Whether every file of a folder's tokenizer says what open_clip's own does."""
    if (folder / "tokenizer.json").exists():  # transformers reads it rather than the other two
        whole = read_json(folder / "tokenizer.json")
        model = whole.get("model")
        if not isinstance(model, dict) or not _is_clips_program(whole, model):
            return False
        vocabulary, written = model.get("vocab"), model.get("merges") or []
        merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in written]
        added = {t.get("content"): t.get("id") for t in whole.get("added_tokens") or []}
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        vocabulary, added = read_json(folder / "vocab.json"), {}
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    else:
        return False
    settings = _optional(folder / "tokenizer_config.json")
    names = {**settings, **_optional(folder / "special_tokens_map.json")}
    added |= _optional(folder / "added_tokens.json")
    decoded = settings.get("added_tokens_decoder") or {}
    added |= {token.get("content"): int(number) for number, token in decoded.items()}
    return (
        added.items() <= _SPECIAL.items()
        and all(_content(names.get(k)) in (None, *usual) for k, usual in _USUAL.items())
        and (vocabulary, merges) == _open_clips_own()
    )


def _is_clips_program(whole: dict[str, Any], model: dict[str, Any]) -> bool:
    """Whether a ``tokenizer.json`` does with text what CLIP's does, whatever its vocabulary."""
    split = {"type": "Split", "behavior": "Removed", "invert": True}
    steps = (whole.get("pre_tokenizer") or {}).get("pretokenizers") or []
    return (
        model.get("type", "BPE") == "BPE"
        and not any(model.get(k) for k in ("dropout", "byte_fallback", "ignore_merges"))
        and not model.get("continuing_subword_prefix")
        and model.get("end_of_word_suffix") == "</w>"
        and all(whole.get(key) == value for key, value in _BEFORE.items())
        and len(steps) == 2
        and steps[0] in [{**split, "pattern": {"Regex": regex}} for regex in _SPLITS]
        and (steps[1].get("type"), steps[1].get("add_prefix_space")) == ("ByteLevel", False)
    )


@cache
def _open_clips_own() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and merges of open_clip's tokenizer, as transformers' files hold them."""
    from open_clip.tokenizer import SimpleTokenizer

    own = SimpleTokenizer()
    words = {w: i for w, i in own.encoder.items() if i < min(_SPECIAL.values())}
    return words | _SPECIAL, sorted(own.bpe_ranks, key=own.bpe_ranks.__getitem__)


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _content(token: Any) -> Any:
    """The text of a special token, which files hold with or without its properties."""
    return token.get("content", token) if isinstance(token, dict) else token
