"""Commands under torchrun: what the ranks share, how they end together, and what is refused."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

from geomkit.errors import GeomkitError

from . import console

if TYPE_CHECKING:
    from geomkit._core.parallel import Team

__all__ = ["alone", "joined"]

_LOST = re.compile(r"gloo|NCCL|c10d|(connection|socket).*(closed|reset|refused)", re.IGNORECASE)
"""What torch says when another rank does not answer."""


@contextmanager
def joined(device: str) -> Iterator[Team]:
    """Yield the team of this process; if one of its ranks fails, all end, with one line.

    The first rank logs for all.

    Args:
        device: Device of the work, as it was given.
    """
    from geomkit._core.parallel import Team

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it warns of every lost connection
    team = Team.from_environment(device, say=_say)
    if team.size == 1:
        yield team
        return
    console.settings.quiet |= team.rank > 0
    try:
        yield team
        team.close()
    except BaseException as error:
        if console.settings.debug:
            traceback.print_exc()
        lost = isinstance(error, RuntimeError) and _LOST.search(str(error))
        text = "interrupted"
        if lost:
            text = "another rank has ended (killed, if memory ran out) or does not answer"
        elif isinstance(error, Exception):
            text = console.explained(error)
        named = team.rank == 0 or text.startswith("rank ")
        team.fail(text if named else f"rank {team.rank}: {text}")
        console.flush()
        # Not through the interpreter's exit: it may wait for a device that waits for a rank.
        os._exit(130 if isinstance(error, KeyboardInterrupt) else 2)


def _say(text: str) -> None:
    console.line(f"geomkit: {text}", even_if_quiet=True)


def alone(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that is refused under torchrun, where each rank would do all of it."""

    @wraps(command)
    def call(**given: Any) -> Any:
        if os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ:
            if os.environ["RANK"] != "0":  # one line for all
                return 0
            name = command.__name__.replace("_", "-")
            raise GeomkitError(
                f"{name}: runs in one process; start it without torchrun, which is for "
                "train, extract and gap (or unset WORLD_SIZE)"
            )
        return command(**given)

    return call
