"""From captions to token ids: open_clip's own byte pairs, or a tokenizer in a folder."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import filterfalse, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geomkit._core.schema import check_schema
from geomkit.errors import GeomkitError, reason, unknown_name
from geomkit.models.config_check import check_options
from geomkit.models.hub import closed

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TOKENIZERS", "VOCABULARY", "Tokenizer"]

TOKENIZERS = ("SimpleTokenizer", "HFTokenizer")
VOCABULARY = 49408
"""Number of ids of open_clip's own tokenizer."""
_START, _SHARED = VOCABULARY - 2, 256
"""Its last two ids start and end; ids that the tokens of other captions share."""
_MOST_CAPTIONS = 100_000
_OWN_CLEAN = {"none": str, "lowercase": str.lower}
_LONGEST = 2**20
_CLEAN = ("whitespace", "lower", "canonicalize", *_OWN_CLEAN)


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a model, as a checkpoint stores it.

    Attributes:
        name: ``SimpleTokenizer``, open_clip's own, or ``HFTokenizer``, which transformers reads
            from a folder as open_clip's class of that name uses it.
        context_length: Token ids per caption.
        path: Folder of a ``HFTokenizer``, as are all fields below.
        clean: How captions are cleaned: ``whitespace``, ``lower`` or ``canonicalize`` as open_clip
            does, ``lowercase`` and nothing else, or ``none``.
        strip_sep_token: Whether separator tokens become zero.
        mode: open_clip's tokenizer mode.
        options: Arguments for transformers.
        vocab_size: Number of token ids that the model knows; default: not checked.
        kept: For a ``SimpleTokenizer``, those of open_clip's tokens that have an id of their own,
            in order, but for start and end; all others share 256 ids. Default: all.

    >>> Tokenizer(context_length=8).encode(["a red ball"]).shape
    torch.Size([1, 8])
    """

    name: str = "SimpleTokenizer"
    path: str | None = None
    context_length: int = 77
    clean: str = "whitespace"
    strip_sep_token: bool = False
    mode: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    vocab_size: int | None = None
    kept: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown name."""
        if self.name not in TOKENIZERS:
            raise unknown_name("tokenizer", self.name, TOKENIZERS)

    @property
    def size(self) -> int:
        """Number of ids of a ``SimpleTokenizer``."""
        return VOCABULARY if self.kept is None else len(self.known)

    @property
    def known(self) -> list[int]:
        """Ids of open_clip's tokens that the ids of this ``SimpleTokenizer`` stand for."""
        ends = range(_START, VOCABULARY)
        if self.kept is None:
            return list(range(VOCABULARY))
        others = filterfalse(set(self.kept).__contains__, range(_START))
        return [*self.kept, *islice(others, _SHARED), *ends]

    def for_captions(self, captions: Sequence[str]) -> Tokenizer:
        """Return the ``SimpleTokenizer`` of the tokens that captions have.

        A token that no training caption has keeps the embedding it was drawn with: which of many
        such embeddings it has does not matter, so that all of these tokens share some.
        More than 100,000 captions have most tokens, and take long to look through: they get all.

        >>> words = Tokenizer(context_length=8).for_captions(["a red ball"])
        >>> words.size, words.encode(["a red ball", "a red car"])[:, 1:5].tolist()
        (262, [[1, 2, 3, 261], [1, 2, 83, 261]])
        """
        if len(captions) > _MOST_CAPTIONS:
            return self
        used = self.encode(captions).unique().tolist()
        return replace(self, kept=tuple(number for number in used if number < _START))

    @staticmethod
    def for_model(
        model_config: Mapping[str, Any], *, folder: str | Path | None = None
    ) -> Tokenizer:
        """The tokenizer of an open_clip model config; only open_clip's own needs no file.

        Args:
            model_config: open_clip's model config.
            folder: Folder with the files of any other tokenizer.

        Raises:
            GeomkitError: if the architecture's tokenizer is on a hub and no folder is given.
        """
        text = model_config["text_cfg"]
        name = text.get("hf_tokenizer_name") or text.get("hf_model_name")
        context = text.get("context_length", 77)
        if not name:
            return Tokenizer(context_length=context)
        if folder is None:
            raise GeomkitError(
                f"model: its tokenizer '{name}' would have to be downloaded; "
                "choose an architecture with open_clip's own tokenizer, such as tiny or ViT-B-32"
            )
        options = dict(text.get("tokenizer_kwargs") or {})
        return Tokenizer.in_folder(
            folder,
            context_length=context,
            clean=options.pop("clean", "whitespace"),
            strip_sep_token=options.pop("strip_sep_token", False),
            mode=text.get("tokenizer_mode"),
            options=options,
            vocab_size=None if text.get("hf_model_name") else text.get("vocab_size"),
        )

    @staticmethod
    def in_folder(folder: str | Path, **fields: Any) -> Tokenizer:
        """The ``HFTokenizer`` in a folder; see the attributes for the other fields."""
        return Tokenizer("HFTokenizer", str(Path(folder).absolute()), **fields)

    @staticmethod
    def from_dict(content: Mapping[str, Any], *, where: str = "tokenizer") -> Tokenizer:
        """The tokenizer that a file describes; :meth:`as_dict` returns the same entries.

        Args:
            content: The entries.
            where: Name of the file and entry in errors.

        Raises:
            GeomkitError: if an entry is missing or unknown, or of a wrong type.
        """
        check_schema(content, Tokenizer, where)
        check_options(content.get("options", {}), f"{where}.options")
        if not 0 < content.get("context_length", 77) < _LONGEST:
            raise GeomkitError(f"{where}.context_length: {content['context_length']}")
        if (kept := content.get("kept")) is not None:
            if not all(a < b for a, b in pairwise([-1, *kept, _START])):
                raise GeomkitError(f"{where}.kept: expected ids from 0 to {_START - 1}, in order")
            return Tokenizer(**{**content, "kept": tuple(kept)})
        return Tokenizer(**content)

    def as_dict(self) -> dict[str, Any]:
        """The entries to store, as plain values.

        >>> Tokenizer(context_length=32).as_dict()
        {'name': 'SimpleTokenizer', 'context_length': 32}
        """
        if self.path is None:
            known = {} if self.kept is None else {"kept": list(self.kept)}
            return {"name": self.name, "context_length": self.context_length, **known}
        return {key: value for key, value in asdict(self).items() if key != "kept"}

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Token ids ``(n, context_length)`` of captions, padded as the tokenizer pads.

        Args:
            captions: ``n`` captions; a caption that is too long is cut, its end token kept.

        Raises:
            GeomkitError: if the tokenizer cannot be read, or returns ids past the model's
                vocabulary.
        """
        if self.name == "SimpleTokenizer":
            return _simple(self.context_length, self.kept)(list(captions))
        if not captions:
            import torch

            return torch.zeros(0, self.context_length, dtype=torch.long)
        tokenizer = self._in_folder()
        with _its_reasons(Path(self.path or ""), "fails on a caption"):
            tokens = tokenizer(list(captions))
        if self.vocab_size is not None and int(tokens.max()) >= self.vocab_size:
            raise GeomkitError(
                f"{self.path}: its tokenizer returns id {int(tokens.max())}, the model has "
                f"{self.vocab_size} ids; it belongs to another model"
            )
        return tokens

    def cut(self, captions: Sequence[str], tokens: Tensor) -> list[int]:
        """Which captions are too long and lose their end.

        Args:
            captions: ``n`` captions.
            tokens: Their token ids, from :meth:`encode`.

        >>> words = Tokenizer(context_length=8)
        >>> captions = ["a red ball", "a red ball on a green box", "a red ball on a box"]
        >>> words.cut(captions, words.encode(captions))
        [1]
        """
        pad, last = 0, -1
        if self.name != "SimpleTokenizer":
            inner = self._in_folder().tokenizer
            pad = inner.pad_token_id
            # Where captions are padded with their end token, the token before it tells.
            last = -2 if pad == inner.eos_token_id else -1
        full = (tokens[:, last] != pad).nonzero()[:, 0].tolist()
        longer = replace(self, context_length=self.context_length + 1)
        more = longer.encode([captions[row] for row in full])
        return [row for row, ids in zip(full, more, strict=True) if ids[last] != pad]

    def _in_folder(self) -> Any:
        return _from_folder(json.dumps(self.as_dict(), sort_keys=True))


@contextlib.contextmanager
def _its_reasons(path: Path, what: str) -> Iterator[None]:
    """Name the folder in whatever a tokenizer raises, a panic of its Rust code among it."""
    try:
        with closed():
            yield
    except GeomkitError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise GeomkitError(f"{path}: its tokenizer {what} ({reason(error)})") from None


@functools.lru_cache(maxsize=1 << 16)
def _words(caption: str) -> tuple[int, ...]:
    """Ids of open_clip's tokens of a caption: one training after the other asks for the same."""
    return tuple(_open_clip().encode(caption))


@functools.cache
def _open_clip() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


@functools.lru_cache(maxsize=8)
def _simple(context_length: int, kept: tuple[int, ...] | None) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    class Remembering(SimpleTokenizer):
        def encode(self, text: str) -> list[int]:
            """Ids of a caption, without start and end."""
            return list(_words(text))

    if kept is None:
        return Remembering(context_length=context_length)
    ids = {token: number for number, token in enumerate(kept)}
    size = Tokenizer(kept=kept).size
    shared = size - 2 - len(kept)

    class Known(SimpleTokenizer):
        def encode(self, text: str) -> list[int]:
            """Ids of a caption, without start and end."""
            return [ids[t] if t in ids else len(ids) + t % shared for t in _words(text)]

    tokenizer = Known(context_length=context_length)
    tokenizer.sot_token_id, tokenizer.eot_token_id = size - 2, size - 1
    return tokenizer


@functools.lru_cache(maxsize=4)
def _from_folder(stored: str) -> Any:
    entry = Tokenizer.from_dict(json.loads(stored))
    path = Path(entry.path or "")
    if not path.is_dir():
        raise GeomkitError(f"{path}: no such folder; it held the model's tokenizer")
    if entry.clean not in _CLEAN:
        raise unknown_name("way to clean captions", entry.clean, _CLEAN)
    try:
        import transformers
    except ImportError:
        raise GeomkitError(
            f"{path}: its tokenizer needs transformers; install geomkit[hf]"
        ) from None
    from open_clip.tokenizer import HFTokenizer

    offline = {**entry.options, "local_files_only": True, "trust_remote_code": False}
    with _its_reasons(path, "cannot be read"):
        tokenizer = HFTokenizer(
            str(path),
            context_length=entry.context_length,
            clean="whitespace" if entry.clean in _OWN_CLEAN else entry.clean,
            strip_sep_token=entry.strip_sep_token,
            tokenizer_mode=entry.mode,
            **offline,
        )
        if (path / "tokenizer.json").is_file():
            # transformers 5 rebuilds the tokenizers that it knows by name, and drops what a
            # tokenizer.json says of normalisation.
            tokenizer.tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(
                path, **offline
            )
    tokenizer.clean_fn = _OWN_CLEAN.get(entry.clean, tokenizer.clean_fn)
    if tokenizer.tokenizer.pad_token is None:
        raise GeomkitError(f"{path}: its tokenizer has no token to pad with")
    return tokenizer
