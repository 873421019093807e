"""What a folder that transformers saved says about the images and captions its model takes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
        content = json.loads(path.read_text(encoding="utf-8"))
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
    return Preprocess(
        size,
        mean=tuple(map(float, config["image_mean"])) if normal else (0.0, 0.0, 0.0),
        std=tuple(map(float, config["image_std"])) if normal else (1.0, 1.0, 1.0),
        interpolation=_RESAMPLE[config["resample"]],
        resize_mode=mode,
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


def tokenizer_in(folder: Path, *, context_length: int, vocab_size: int) -> Tokenizer:
    """Return the tokenizer of a folder: open_clip's own if the vocabulary is the same.

    Args:
        folder: Folder with ``vocab.json`` and ``merges.txt``, ``tokenizer.json``, or any other
            tokenizer file that transformers reads.
        context_length: Number of tokens that the model takes.
        vocab_size: Number of token ids that the model knows.

    Raises:
        GeomkitError: If there is no tokenizer, or its files are damaged.
    """
    if not has_tokenizer(folder):
        raise GeomkitError(
            f"{folder}: no tokenizer in it; put tokenizer.json, or vocab.json and merges.txt, there"
        )
    if _is_open_clips_own(folder):
        return Tokenizer(context_length=context_length)
    return Tokenizer.in_folder(
        folder, context_length=context_length, clean="none", vocab_size=vocab_size
    )


def _is_open_clips_own(folder: Path) -> bool:
    from open_clip.tokenizer import SimpleTokenizer

    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        vocabulary: Any = read_json(folder / "vocab.json")
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    elif (folder / "tokenizer.json").exists():
        model = read_json(folder / "tokenizer.json").get("model") or {}
        if model.get("type") != "BPE":
            return False
        vocabulary = model.get("vocab")
        merges = [
            tuple(pair.split(" ") if isinstance(pair, str) else pair)
            for pair in model.get("merges") or []
        ]
    else:
        return False
    own = SimpleTokenizer()
    special = 2  # the start and the end token, which have other names here
    words = {w: i for w, i in own.encoder.items() if i < len(own.encoder) - special}
    return (
        isinstance(vocabulary, dict)
        and len(vocabulary) == len(own.encoder)
        and all(vocabulary.get(w) == i for w, i in words.items())
        and merges == sorted(own.bpe_ranks, key=own.bpe_ranks.__getitem__)
    )
