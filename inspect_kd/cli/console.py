"""The command line's one way to print through Rich.

Unusual here: no markup and no emoji codes. What is printed comes from folders and files, and a category named `bolt[m8]` is
to be shown as it is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """A console that shows each text as it is."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)
