"""Processes that outlive the Studio: whether one is still the one that was started, and how it is asked to end.

A process id alone says nothing, because ids are used again. Together with the moment of its birth it names one process.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

_PROC = Path("/proc")
_STATE, _START = 0, 19
"""Places in /proc/<pid>/stat, counted behind the program's name (man 5 proc: fields 3 and 22)."""


def birth(pid: int) -> str | None:
    """What tells this process from any other that ever has its id; None where nobody lives under it."""
    if (_PROC / "self" / "stat").is_file():
        return _birth_on_linux(pid)
    return _birth_by_ps(pid) if os.name == "posix" else None


def _birth_on_linux(pid: int) -> str | None:
    try:
        told = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        boot = (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The name stands in brackets and may hold brackets and blanks of its own.
    fields = told.rpartition(")")[2].split()
    # A dead process that nobody has fetched yet still has its entry.
    return None if fields[_STATE] in "ZX" else f"{boot}/{fields[_START]}"


def _birth_by_ps(pid: int) -> str | None:
    words = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    answer = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    state, _, started = answer.stdout.strip().partition(" ")
    return started.strip() or None if state and not state.startswith("Z") else None


def is_still(pid: int, born: str) -> bool:
    """Whether the process of that birth still lives."""
    return bool(born) and birth(pid) == born


def is_started_with(pid: int, words: Sequence[str]) -> bool:
    """Whether the command line of a process holds these words, one after the other."""
    if (_PROC / "self" / "stat").is_file():
        wanted = "\0".join(words)
        try:
            line = (_PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", errors="surrogateescape")
        except OSError:
            return False
    else:
        wanted = "\0".join(" ".join(words).split())
        shown = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        line = "\0".join(subprocess.run(shown, capture_output=True, text=True, check=False).stdout.split())
    return f"\0{wanted}\0" in f"\0{line}\0"


def tell_group(leader: int, number: signal.Signals) -> None:
    """A signal for a process and all that it has started; the caller has made sure whose id it is."""
    try:
        if os.name == "posix":
            os.killpg(leader, number)
        else:
            # There is no gentle way here; the checkpoint makes the rough one bearable.
            os.kill(leader, signal.SIGTERM)
    except ProcessLookupError:
        return  # It ended between two looks.


def ended_by(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
