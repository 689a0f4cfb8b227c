"""Look up the versions of installed distributions."""

from __future__ import annotations

from collections.abc import Iterable


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Map the names of installed distributions to their versions; leave out missing ones."""
    # Imported here, because the import takes 20 ms, also for `--help`.
    from importlib import metadata

    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
