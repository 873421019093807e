"""The libraries of Hugging Face, kept from the network, from running code, and quiet."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator
from typing import Any

__all__ = ["closed"]

_SWITCHES: tuple[tuple[str, str, Any], ...] = (
    ("huggingface_hub.constants", "HF_HUB_OFFLINE", True),
    ("transformers.utils.hub", "_is_offline_mode", True),  # before transformers 5
    # Without time to answer, it refuses instead of asking whether to run the code of a file.
    ("transformers.dynamic_module_utils", "TIME_OUT_REMOTE_CODE", 0),
)


@contextlib.contextmanager
def closed() -> Iterator[None]:
    """Keep the hub's client and transformers off the network, from asking to run code, and quiet.

    What transformers warns of, such as ids of tokens beyond the vocabulary, is checked by geomkit.
    """
    with contextlib.ExitStack() as restored:
        for module, name, value in _SWITCHES:
            with contextlib.suppress(ImportError):
                found = importlib.import_module(module)
                if hasattr(found, name):
                    restored.callback(setattr, found, name, getattr(found, name))
                    setattr(found, name, value)
        log = logging.getLogger("transformers")
        restored.callback(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
        yield
