"""Read `env.json` of a run that is resumed: the folder may be somebody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inspect_kd import strict_json
from inspect_kd.errors import BadInput
from inspect_kd.plain_file import read_plain_file
from inspect_kd.train.checkpoint import AGAIN

LARGEST = 1 << 20


def read_environment(path: Path) -> dict[str, Any]:
    """Versions, machine and command of a training; BadInput where the file is no JSON object."""
    try:
        content = strict_json.loads(read_plain_file(path, "environment of a run", LARGEST), file_names=True)
    except ValueError as error:
        raise BadInput(f"{path}: not readable as JSON ({error}){AGAIN}") from error
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected a JSON object, found {type(content).__name__}{AGAIN}")
    return content
