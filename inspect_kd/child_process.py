"""Start Python processes that import nothing from the working directory.

`python -m` and `python -c` put the working directory first on the import path: a `typer.py` in a folder of images would be
executed. Every Python process of this program is started by this module.
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
    """Return the command line of a Python process; run it with `python_environment()`."""
    if getattr(sys, "frozen", False) or not sys.executable:
        raise EnvironmentFault(
            "there is no Python interpreter to start a process with: install inspect-kd into a Python environment"
        )
    return [sys.executable, "-P", *arguments]


def python_environment() -> dict[str, str]:
    """Return an environment in which Python can import what this process can, except from the working directory."""
    paths = [path for path in sys.path if path and not _is_working_directory(path)]
    # Always added, last: a checkout that is not installed can only be imported from there.
    paths.append(PACKAGE_PARENT)
    # A path with a colon would be split in two, the second relative to the working directory.
    usable = [path for path in paths if os.pathsep not in path]
    return os.environ | {"PYTHONPATH": os.pathsep.join(usable), "PYTHONSAFEPATH": "1"}


def protect_later_processes() -> None:
    """Make every Python process that this one or its libraries start from now on behave as with `-P`."""
    os.environ["PYTHONSAFEPATH"] = "1"


def spawn_process(target: Callable[..., None], *arguments: Any) -> SpawnProcess:
    """Start a `multiprocessing` process. Spawned, not forked: torch's threads do not survive a fork."""
    import multiprocessing  # slow to import, and not needed for `--help`

    # It runs `python -c …`, and adds `-P` only if this process was started with it.
    protect_later_processes()
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    return process


def _is_working_directory(path: str) -> bool:
    try:
        return Path(path).samefile(os.curdir)
    except OSError:
        return False  # a path inside a zip file, or a deleted folder
