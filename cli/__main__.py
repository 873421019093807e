"""``python -m geomkit_cli``, also under torchrun, and the command ``geomkit``."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported ends it like one later."""
    # OpenMP reads them when torch is loaded. Threads that spin while they wait for each other hold
    # cores that another process needs, or the very thread they wait for; but to be woken takes
    # longer than most waits, so they look a thousand times before they sleep.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        from .app import main as start
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    start()


if __name__ == "__main__":
    main()
