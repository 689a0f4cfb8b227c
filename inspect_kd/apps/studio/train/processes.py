"""Processes that outlive the Studio: recognise one after a restart, and signal its group.

A process id alone does not identify a process, because ids are used again; the id and the start time together do.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

_PROC = Path("/proc")
_STATE, _START = 0, 19
"""Positions in /proc/<pid>/stat after the program's name (man 5 proc: fields 3 and 22)."""


def process_birth(pid: int) -> str | None:
    """A text that differs from that of any other process with this id; None if no such process runs."""
    if (_PROC / "self" / "stat").is_file():
        return _birth_on_linux(pid)
    return _birth_by_ps(pid) if os.name == "posix" else None


def _birth_on_linux(pid: int) -> str | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        boot = (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The name is in brackets, and may contain brackets and blanks itself.
    fields = stat.rpartition(")")[2].split()
    # A process that has ended still has an entry until its parent has read its exit code.
    return None if fields[_STATE] in "ZX" else f"{boot}/{fields[_START]}"


def _birth_by_ps(pid: int) -> str | None:
    arguments = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    listed = subprocess.run(arguments, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    state, _, started = listed.stdout.strip().partition(" ")
    return started.strip() or None if state and not state.startswith("Z") else None


def is_alive(pid: int, birth: str) -> bool:
    """Whether the process of this id and birth still runs."""
    return bool(birth) and process_birth(pid) == birth


def is_started_with(pid: int, arguments: Sequence[str]) -> bool:
    """Whether the command line of a process contains exactly this sequence of arguments."""
    if (_PROC / "self" / "stat").is_file():
        wanted = "\0".join(arguments)
        try:
            line = (_PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", errors="surrogateescape")
        except OSError:
            return False
    else:
        wanted = "\0".join(" ".join(arguments).split())
        listing = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        line = "\0".join(subprocess.run(listing, capture_output=True, text=True, check=False).stdout.split())
    return f"\0{wanted}\0" in f"\0{line}\0"


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signal a process and everything it has started; the caller must have checked that the id is still that process's."""
    try:
        if os.name == "posix":
            os.killpg(leader, number)
        else:
            # Windows has no gentler signal; the training can continue from its checkpoint.
            os.kill(leader, signal.SIGTERM)
    except ProcessLookupError:
        return  # the process has already ended


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
