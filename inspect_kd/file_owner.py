"""Who may change a file: what decides over trust (keys, engines, what passed the quarantine) must be this user's own.

Every folder on the way is checked, as sshd does: whoever may write one of them may put another folder in the place of the
next. Systems without owners are left alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from inspect_kd.errors import EnvironmentFault

ROOT = 0
MOST_LINKS = 40
"""Symbolic links on the way to one file; Linux follows as many."""


def refuse_writable_by_others(path: Path, reason: str, setting: str) -> None:
    """Raise where somebody else may write a file or folder, or exchange it. What does not exist yet is not checked.

    `reason` says what they could do with it, `setting` how another place is named.
    """
    if not hasattr(os, "getuid"):
        return
    for step, facts, is_last in _steps_to(path):
        if _others_may_write(facts, is_last=is_last):
            raise EnvironmentFault(
                f"{step}: others may write there, and {reason}: make it your own (`chown`, `chmod go-w {step}`), or name another "
                f"folder with {setting}"
            )


def _others_may_write(facts: os.stat_result, *, is_last: bool) -> bool:
    # Root may change everything anyway; folders of keys are often its own.
    if facts.st_uid not in (os.getuid(), ROOT):
        return True
    if stat.S_ISLNK(facts.st_mode):
        # The permissions of a link mean nothing.
        return False
    writers = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not writers or is_last:
        return bool(writers)
    if facts.st_mode & stat.S_ISVTX:
        # As /tmp: others may add files there, but not move what is not theirs.
        return False
    return bool(writers & stat.S_IWOTH) or not _is_own_group(facts.st_gid)


def _is_own_group(group: int) -> bool:
    """True for the group that many systems make for each user alone; their folders are often writable by it."""
    # Not at the top: systems without owners have neither module.
    import grp
    import pwd

    try:
        user, found = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return group == user.pw_gid and found.gr_name == user.pw_name and set(found.gr_mem) <= {user.pw_name}


def _steps_to(path: Path) -> Iterator[tuple[Path, os.stat_result, bool]]:
    """Each folder and link that decides what the path leads to, from the root on, and last the file or folder itself."""
    place = Path("/")
    rest = [*reversed(path.absolute().parts[1:])]
    links = 0
    yield place, place.lstat(), not rest
    while rest:
        name = rest.pop()
        if name == "..":
            place = place.parent
            continue
        step = place / name
        try:
            facts = step.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        is_link = stat.S_ISLNK(facts.st_mode)
        yield step, facts, not rest and not is_link
        if not is_link:
            place = step
            continue
        links += 1
        if links > MOST_LINKS:
            raise EnvironmentFault(f"{path}: more than {MOST_LINKS} symbolic links lead there; name the folder itself")
        target = step.readlink()
        place = Path("/") if target.is_absolute() else place
        rest.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))


def make_own_folder(folder: Path) -> None:
    """Make a folder, and each missing one above it, so that nobody else may write there, whatever the umask."""
    missing = [step for step in (folder, *folder.parents) if not step.exists()]
    for step in reversed(missing):
        step.mkdir(mode=0o700, exist_ok=True)
