"""The Rich console of the command line.

Unusual here: it interprets no markup or emoji codes and escapes control characters, because its text contains file names. A
category named `bolt[m8]` is printed literally, and no name can control the terminal.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from inspect_kd.errors import printable_lines


class PlainConsole(Console):
    """A console that prints text literally."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable_lines(text), **options)
