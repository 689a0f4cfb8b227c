"""Look up the versions of installed distributions."""

from __future__ import annotations

from collections.abc import Iterable


def installed(names: Iterable[str]) -> dict[str, str]:
    """Map the names of installed distributions to their versions; leave out missing ones."""
    # Imported here: it would add 20 ms to every `--help`.
    from importlib import metadata

    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
