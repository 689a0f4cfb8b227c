"""Start Python processes that import nothing from the working directory.

`python -m` and `python -c` put the working directory first on the import path: a `typer.py` that lies beside somebody's
images would be run. Every Python process of this program is started by this module.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inspect_kd.errors import EnvironmentFault

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

PACKAGE_PARENT = str(Path(__file__).resolve().parents[1])


def python_command(*arguments: str) -> list[str]:
    """The command line of a Python process; run it with `python_environment()`."""
    if getattr(sys, "frozen", False) or not sys.executable:
        raise EnvironmentFault(
            "no Python interpreter to start a process with: install inspect-kd into a Python environment"
        )
    return [sys.executable, "-P", *arguments]


def python_environment() -> dict[str, str]:
    """The environment of a Python process that can import what this one can, except from the working directory."""
    places = [place for place in sys.path if place and not _is_working_directory(place)]
    # Last, and even if it is the working directory: a checkout that is not installed is found nowhere else.
    places.append(PACKAGE_PARENT)
    # A colon in a place would make two of it, and the second be looked for in the working directory.
    whole = [place for place in places if os.pathsep not in place]
    return os.environ | {"PYTHONPATH": os.pathsep.join(whole), "PYTHONSAFEPATH": "1"}


def protect_later_processes() -> None:
    """Make every Python process that this one, or a library in it, starts from now on behave as with `-P`."""
    os.environ["PYTHONSAFEPATH"] = "1"


def spawn_process(target: Callable[..., None], *arguments: Any) -> SpawnProcess:
    """A started process of `multiprocessing`. Spawned, not forked: torch's threads do not survive a fork."""
    import multiprocessing  # late: `inspect-kd --help` needs none of it

    # It runs `python -c …` and passes on no `-P` that this process itself was not started with.
    protect_later_processes()
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    return process


def _is_working_directory(place: str) -> bool:
    try:
        return Path(place).samefile(os.curdir)
    except OSError:
        return False  # a zip file's inside, or a folder that is gone
