"""Parse untrusted JSON, and refuse what the standard library accepts but other code fails on.

It refuses NaN and infinities, numbers beyond 64 bit, duplicate keys, lone surrogates and excessive nesting.
"""

from __future__ import annotations

import json
from typing import Any


def loads(text: str | bytes, *, file_names: bool = False) -> Any:
    """Parse like `json.loads`, and raise a ValueError for what is refused. `file_names`: text may hold file names that are not UTF-8."""
    try:
        content = json.loads(text, object_pairs_hook=_without_duplicates, parse_int=_int64)
        # Dumping reveals infinities (such as 1e999) and lone surrogates.
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode(
            errors="surrogateescape" if file_names else "strict"
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return content


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key appears twice")
    return content


def _int64(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError("a number beyond 64 bit")
    return value
