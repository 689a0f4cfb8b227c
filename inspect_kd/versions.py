"""Which distributions are installed, and in which version."""

from __future__ import annotations

from collections.abc import Iterable


def installed(names: Iterable[str]) -> dict[str, str]:
    """Name -> version, of those that are there."""
    # Imported late: it would cost every `--help` 20 ms.
    from importlib import metadata

    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
