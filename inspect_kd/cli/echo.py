"""Print text without Rich, with control characters escaped, because it may hold names from files.

JSON is printed with `typer.echo`, since it has its own escapes.
"""

from __future__ import annotations

import typer

from inspect_kd.errors import printable


def echo(text: object, *, err: bool = False) -> None:
    """Print a text with all control characters but line breaks escaped."""
    typer.echo("\n".join(map(printable, str(text).split("\n"))), err=err)
