"""The report of a run, for display in the Studio. The run may come from somebody else: its page is text that is never parsed."""

from __future__ import annotations

import re
from pathlib import Path

from inspect_kd.errors import BadInput
from inspect_kd.plain_file import open_plain_file

MAX_BYTES = 16 << 20
"""Bytes of a page."""
_LOADING_TAG = re.compile(r"<(?=(?:link|meta|base|iframe|frame|object|embed|portal)\b)", re.IGNORECASE)


def read_report(folder: Path) -> str:
    """Read the page's text; links are not followed, since anybody may have put them there."""
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

    Neither a sandbox nor a content security policy stops `<link rel=preconnect>`. Nothing is cut out, so that no tag can
    form from what is left around a gap.
    """
    return _LOADING_TAG.sub("<!", page)
