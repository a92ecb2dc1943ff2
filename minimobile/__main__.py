"""`python -m minimobile` and `minimobile`: the command line, from the first moment without a traceback."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the command line and end the process with its exit code, also where it is interrupted on the way there."""
    try:
        from minimobile.cli import main

        code = main()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    run()
