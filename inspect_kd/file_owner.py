"""Check who may change a file: keys, engines and the quarantine's record are trusted only if no other user may write them.

Like sshd, this checks every folder on the path: a user who may write to one of them can replace the next. On systems without
file owners nothing is checked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from inspect_kd.errors import EnvironmentFault

ROOT = 0
MAX_LINKS = 40
"""Most symbolic links on the path to one file, as on Linux."""


def refuse_writable_by_others(path: Path, reason: str, setting: str) -> None:
    """Raise if another user may write or replace a file or folder. Folders that do not exist yet are not checked.

    `reason`: the danger, for the message. `setting`: the option that chooses another folder, for the message.
    """
    if not hasattr(os, "getuid"):
        return
    for step, status, is_last in _steps_to(path):
        if _others_may_write(status, is_last=is_last):
            raise EnvironmentFault(
                f"{step}: other users may write there, and {reason}: make it your own (`chown`, `chmod go-w {step}`), or choose another "
                f"folder with {setting}"
            )


def _others_may_write(status: os.stat_result, *, is_last: bool) -> bool:
    # Root may change everything anyway, and often owns folders with keys.
    if status.st_uid not in (os.getuid(), ROOT):
        return True
    if stat.S_ISLNK(status.st_mode):
        # A link's permissions have no effect.
        return False
    writers = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not writers or is_last:
        return bool(writers)
    if status.st_mode & stat.S_ISVTX:
        # Sticky, like /tmp: other users may add files, but not move existing ones.
        return False
    return bool(writers & stat.S_IWOTH) or not _is_own_group(status.st_gid)


def _is_own_group(group: int) -> bool:
    """True for the user's private group: many systems make one per user, and let it write to the user's folders."""
    # Imported here: systems without file owners have neither module.
    import grp
    import pwd

    try:
        user, own_group = pwd.getpwuid(os.getuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return group == user.pw_gid and own_group.gr_name == user.pw_name and set(own_group.gr_mem) <= {user.pw_name}


def _steps_to(path: Path) -> Iterator[tuple[Path, os.stat_result, bool]]:
    """Yield each folder and link on a path, from the root to the file or folder itself: path, status, whether it is the last."""
    folder = Path("/")
    remaining = [*reversed(path.absolute().parts[1:])]
    links = 0
    yield folder, folder.lstat(), not remaining
    while remaining:
        name = remaining.pop()
        if name == "..":
            folder = folder.parent
            continue
        step = folder / name
        try:
            status = step.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        is_link = stat.S_ISLNK(status.st_mode)
        yield step, status, not remaining and not is_link
        if not is_link:
            folder = step
            continue
        links += 1
        if links > MAX_LINKS:
            raise EnvironmentFault(f"{path}: more than {MAX_LINKS} symbolic links on the path; name the folder itself")
        target = step.readlink()
        folder = Path("/") if target.is_absolute() else folder
        remaining.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))


def make_own_folder(folder: Path) -> None:
    """Create a folder and its missing parents with access for this user only, independent of the umask."""
    missing = [step for step in (folder, *folder.parents) if not step.exists()]
    for step in reversed(missing):
        step.mkdir(mode=0o700, exist_ok=True)
