"""JSON from strangers: what the standard library lets through and the rest of a program stumbles over is refused here.

NaN and infinities, numbers beyond 64 bit, a key twice, text that no file can hold, nesting without end.
"""

from __future__ import annotations

import json
from typing import Any


def loads(text: str | bytes, *, file_names: bool = False) -> Any:
    """Like `json.loads`; every refusal is a ValueError. `file_names`: text may hold names of files that are not UTF-8."""
    try:
        content = json.loads(text, object_pairs_hook=_once, parse_int=_whole)
        # Written once more: infinities (1e999 is one) and halves of characters show only then.
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode(
            errors="surrogateescape" if file_names else "strict"
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands twice")
    return content


def _whole(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError("a number beyond 64 bit")
    return value
