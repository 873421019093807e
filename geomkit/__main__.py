"""``python -m geomkit``: the command line."""

from geomkit_cli.__main__ import main

if __name__ == "__main__":
    main()
