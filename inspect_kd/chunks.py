"""Split a sequence into chunks; `itertools.batched` needs Python 3.12."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """Yield consecutive lists of `size` items; the last may be shorter."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
