"""The command line's one way to print through Rich.

Unusual here: no markup, no emoji codes, no control characters. What is printed comes from folders and files: a category named
`bolt[m8]` is shown as it is named, and no name steers a terminal.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from inspect_kd.errors import printable_lines


class PlainConsole(Console):
    """A console that shows each text as it is."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable_lines(text), **options)
