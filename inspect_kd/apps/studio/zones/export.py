"""Run `inspect-kd export --zones` in a separate process, and report its progress."""

from __future__ import annotations

import glob
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inspect_kd import atomic_write
from inspect_kd.apps.studio.train.log import CommandProgress, parse_line
from inspect_kd.apps.studio.train.processes import describe_exit
from inspect_kd.child_process import python_command, python_environment
from inspect_kd.errors import UsageError

MAX_MADE = 1000
"""Artifacts with zones of one run."""
INTERRUPT_S = 10
"""Seconds that an interrupted export has to remove its unfinished files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ZoneExport:
    """The progress of an export, and at the end its artifact or the reason why there is none."""

    phase: str = ""
    done: int = 0
    total: int = 0
    artifact: Path | None = None
    thresholds: tuple[str, ...] = ()
    """The new promise of each category, a line each."""
    error: str = ""


def export_with_zones(run: Path, text: str, folder: Path) -> Iterator[ZoneExport]:
    """Make an artifact of a run with a file of zones; both are written into `folder`. Closing the iterator ends the process."""
    yield ZoneExport()  # the process takes seconds to start
    zones = write_new_zones(text, folder, run.name)
    artifact = zones.with_suffix(".onnx")
    progress = CommandProgress()
    arguments = python_command("-m", "inspect_kd", "export", str(run), "--zones", str(zones), "--output", str(artifact))
    child = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=python_environment(),
    )
    is_made = False
    try:
        with child:
            try:
                for line in child.stderr or ():
                    parse_line(progress, line.decode("utf-8", errors="replace").rstrip())
                    yield ZoneExport(phase=progress.phase, done=progress.done, total=progress.total)
            except BaseException:  # also GeneratorExit, when the caller closes the iterator
                interrupt(child)
                raise
        is_made = child.returncode == 0
    finally:
        if not is_made:
            # The export may have ended at the very moment when it was stopped.
            for path in (zones, artifact, *folder.glob(f"{glob.escape(artifact.name)}.*")):
                path.unlink(missing_ok=True)
    if not is_made:
        yield ZoneExport(error=progress.error or describe_exit(child.returncode))
    else:
        thresholds = tuple(line for line in progress.lines if not line.startswith("{"))
        yield ZoneExport(artifact=artifact, thresholds=thresholds)


def interrupt(child: subprocess.Popen[bytes]) -> None:
    """End a process as Ctrl-C does, so that it removes its unfinished files; kill it if it has not ended in time."""
    child.send_signal(signal.SIGINT)
    try:
        # Its last lines are read, because a full pipe would hold it up.
        child.communicate(timeout=INTERRUPT_S)
    except subprocess.TimeoutExpired:
        child.kill()


def write_new_zones(text: str, folder: Path, run: str) -> Path:
    """Write the zones under the first free number of this run."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, MAX_MADE + 1):
        path = folder / f"{run}-zones-{number}.yaml"
        if path.with_suffix(".onnx").exists():
            continue
        try:
            atomic_write.write_new(path, text.encode())
        except FileExistsError:
            continue
        return path
    raise UsageError(f"{folder} has {MAX_MADE} artifacts of {run}: remove those that are not needed")
