"""Split a sequence into chunks (`itertools.batched` needs Python 3.12), and choose evenly spread indices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """Yield consecutive lists of `size` items; the last may be shorter."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def evenly_spread(count: int, limit: int) -> list[int]:
    """Return at most `limit` indices below `count`, evenly spread from the first to the last."""
    if count <= limit:
        return list(range(count))
    return [round(i * (count - 1) / max(1, limit - 1)) for i in range(limit)]
