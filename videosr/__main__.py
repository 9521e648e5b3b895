"""The command: `videosr` and `python -m videosr`."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Load the libraries and run the command line; never returns."""
    try:
        from videosr.cli import main as command  # here, so that Ctrl-C while libraries load ends as quietly as later

        command()
    except KeyboardInterrupt:  # while they load, or in the instants before and after the command minds it itself
        sys.exit(130)


if __name__ == "__main__":
    main()
