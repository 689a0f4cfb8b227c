"""Read a JSON file of a run's folder, which may come from another person: bounded, strict, and an object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inspect_kd import strict_json
from inspect_kd.errors import BadInput
from inspect_kd.plain_file import read_plain_file


def read_json_file(path: Path, kind: str, max_bytes: int, remedy: str) -> dict[str, Any]:
    """The object in a file of this kind; errors end with the remedy."""
    try:
        content = strict_json.loads(read_plain_file(path, kind, max_bytes), file_names=True)
    except ValueError as error:
        raise BadInput(f"{path}: not readable as JSON ({error}){remedy}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected a JSON object, found {type(content).__name__}{remedy}")
    return content
