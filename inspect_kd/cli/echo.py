"""The command line's way to print text without Rich: names and titles come from data, and none of them steers a terminal.

JSON goes through `typer.echo`: it has escapes of its own.
"""

from __future__ import annotations

import typer

from inspect_kd.errors import printable_lines


def echo(text: object, *, err: bool = False) -> None:
    """Print a text, with every control character but the line break escaped."""
    typer.echo(printable_lines(str(text)), err=err)
