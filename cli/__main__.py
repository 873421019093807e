"""``python -m geomkit_cli``, also under torchrun."""

from .app import main

main()
