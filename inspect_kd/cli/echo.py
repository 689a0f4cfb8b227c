"""Print text without Rich, with control characters escaped, because it may hold names from files.

JSON is printed with `typer.echo`, since it has its own escapes.
"""

from __future__ import annotations

import typer

from inspect_kd.errors import printable_lines


def echo(text: object, *, err: bool = False) -> None:
    """Print a text, with every control character but the line break escaped."""
    typer.echo(printable_lines(str(text)), err=err)
