"""A run's record, `run.json` (its manifest): read and checked as a whole, as the run may come from another person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from inspect_kd import config, weights
from inspect_kd.errors import BadInput
from inspect_kd.plain_file import MissingFile, open_plain_file
from inspect_kd.training.run.json_file import read_json_file

MAX_BYTES = 4 << 20


class _ManifestPart(BaseModel):
    """The keys that this program reads; all others are kept."""

    model_config = ConfigDict(extra="allow")


class _Data(_ManifestPart):
    name: str
    digest: str
    source: Any = None
    """A path or None. Not checked as text: a path need not be UTF-8."""


class _Source(_ManifestPart):
    sha256: str


class _TaughtBy(_ManifestPart):
    licences: dict[str, str]


class _Manifest(_ManifestPart):
    files: dict[str, str]
    data: _Data
    sources: list[_Source]
    encoder: dict[str, Any] | None = None
    """None for a teacher."""
    parity: dict[str, Any] = {}
    refused: dict[str, str] = {}
    """Deployments whose export failed, with the reason."""
    stages: dict[str, Any] = {}
    taught_by: dict[str, _TaughtBy] = {}


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest; raise BadInput where a key that this program reads is missing or of another type."""
    content = read_json_file(path, "manifest of a run", MAX_BYTES, "; train the run again")
    config.fill(_Manifest, content, where=str(path), fault=BadInput)
    if not isinstance(content["data"].get("source"), str | None):
        raise BadInput(f"{path}: data.source: expected a path; train the run again")
    return content


def refuse_changed_files(folder: Path, files: Mapping[str, str], allowed: Iterable[frozenset[str]]) -> None:
    """Compare a run's files with their digests. `files`, from the manifest, must be one of the allowed sets."""
    if frozenset(files) not in allowed:
        raise BadInput(f"{folder / 'run.json'}: files: not those of a run ({sorted(files)}); train the run again")
    for name, digest in files.items():
        try:
            with open_plain_file(folder / name, "file of a run") as file:
                changed = weights.sha256_of(file) != digest
        except MissingFile:
            changed = True
        if changed:
            raise BadInput(f"{folder / name}: missing, or changed since the training wrote it")
