"""Run the command line as `python -m inspect_kd`.

Unusual here: the command line is imported inside a function, so that Ctrl-C during the imports also ends with exit
code 130, without a traceback.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Import and run the command line."""
    try:
        from inspect_kd.cli import main as run_command_line

        run_command_line()
    except KeyboardInterrupt:
        sys.stderr.write("inspect-kd: stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
