"""Read the report of a run for display in the Studio. It may come from another person, so it is never parsed."""

from __future__ import annotations

import re
from pathlib import Path

from inspect_kd.errors import BadInput
from inspect_kd.plain_file import open_plain_file

MAX_BYTES = 16 << 20
"""Limit of a report's size."""
_LOADING_TAG = re.compile(r"<(?=(?:link|meta|base|iframe|frame|object|embed|portal)\b)", re.IGNORECASE)


def read_report(folder: Path) -> str:
    """Read the page's text; links are not followed, since they could lead to any file."""
    path = folder / "report.html"
    try:
        with open_plain_file(path, "report", follow_links=False) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, BadInput):
        raise BadInput(f"{folder.name} has no report yet") from None
    if len(content) > MAX_BYTES:
        raise BadInput(f"the report of {folder.name} is larger than {MAX_BYTES >> 20} MB: open the file itself")
    return content.decode("utf-8", errors="replace")


def without_loading_tags(page: str) -> str:
    """Turn tags that load, connect, redirect or nest a page into comments (`<!link …>` is one).

    Neither a sandbox nor a content security policy stops `<link rel=preconnect>`. Tags are replaced rather than removed, since the
    text around a removed tag could form another one.
    """
    return _LOADING_TAG.sub("<!", page)
