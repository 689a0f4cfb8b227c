"""What zones of a run are drawn on: computed in a separate process, which a hostile image can crash, and kept."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from inspect_kd.apps.studio.train.one_at_a_time import one_at_a_time
from inspect_kd.apps.studio.train.processes import describe_exit
from inspect_kd.apps.studio.zones import texts
from inspect_kd.child_process import python_command, python_environment
from inspect_kd.errors import BadInput, printable

TIMEOUT_S = 300
MODULE = "inspect_kd.apps.studio.zones.median_part"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDescription:
    """The frames and zones of a run, and the median sound part of one category."""

    run: str
    category: str
    source: str
    """The data set, as the run names it."""
    frames: dict[str, dict[str, Any]]
    """Category -> `frame` (width, height) and `aligned`."""
    zones: list[dict[str, Any]]
    """The run's own, as a file would list them."""
    has_labels: bool
    parts: int
    """Sound parts of which the median is."""
    picture: str
    """As a data URI."""
    fault: str
    """Why this category has no picture to draw on; empty if it has one."""

    def about(self) -> str:
        """What the picture shows."""
        frame = self.frames[self.category]
        width, height = frame["frame"]
        text = texts.ABOUT_ALIGNED if frame["aligned"] else texts.ABOUT_PLAIN
        return text.format(parts=self.parts, width=width, height=height)


@one_at_a_time
@lru_cache(maxsize=16)
def describe(run: Path, category: str, root: Path, _modified: int) -> RunDescription:
    """Describe a run. `_modified` is part of the cache's key, so that a run that was trained anew is described anew."""
    arguments = python_command("-m", MODULE, str(run), category, str(root))
    try:
        answer = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, env=python_environment(), timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise BadInput(texts.NO_PICTURE.format(reason=f"{TIMEOUT_S} s")) from None
    try:
        content = json.loads(answer.stdout)
    except ValueError:
        lines = answer.stderr.decode("utf-8", errors="replace").strip().splitlines()
        reason = lines[-1] if lines else describe_exit(answer.returncode)
        raise BadInput(texts.NO_PICTURE.format(reason=hide_root(root, reason))) from None
    if "error" in content:
        raise BadInput(hide_root(root, content["error"]))
    return RunDescription(run=run.name, **content)


def hide_root(root: Path, text: str) -> str:
    """Remove the server's own folders from a text for browsers, and make it printable."""
    home = printable(str(root.resolve()))
    return printable(text).replace(f"{home}{os.sep}", "").replace(home, ".")
