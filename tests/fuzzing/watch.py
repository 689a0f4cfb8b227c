"""Detect files that an input makes the program open outside its folder, by an audit hook and inotify.

Inputs may read the sandbox. Bait files lie in a folder beside it, where inotify also reports files that native code opens.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import tempfile
from pathlib import Path

OPENED, IS_FOLDER = 0x20, 0x40000000
"""inotify's IN_OPEN and IN_ISDIR. Folders do not count: the program lists a linked folder before it refuses it."""
EVENT = struct.Struct("iIII")
"""Header of an inotify event: watch, mask, cookie, length of the name."""


class Watch:
    """Records forbidden files in `opened` when the program opens them while `is_armed` is true."""

    def __init__(self, sandbox: Path, bait: Path) -> None:
        self.is_armed = False
        self.opened: list[str] = []
        folders = (sandbox, sys.prefix, sys.base_prefix, sys.exec_prefix, Path(__file__).parents[2], *sys.path)
        # Files of the system that runtimes read: processor, memory, time zone.
        system = ("/dev/null", "/dev/urandom", "/sys", "/proc/cpuinfo", "/proc/meminfo", "/usr/share/zoneinfo")
        self.allowed = tuple({os.path.realpath(path) for path in map(str, folders) if path} | set(system))
        self.bait_events = _watch_with_inotify(bait)
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.is_armed or event != "open" or not isinstance(arguments[0], str | bytes):
            return
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if not any(path == allowed or path.startswith(f"{allowed}{os.sep}") for allowed in self.allowed):
            self.opened.append(path)

    def forget_opened(self) -> None:
        """Forget the forbidden files opened so far."""
        self.take_opened()

    def take_opened(self) -> list[str]:
        """Return the forbidden files opened since the last call."""
        opened, self.opened = self.opened, []
        return opened + (["the bait outside the folder"] if _was_opened(self.bait_events) else [])


def _watch_with_inotify(bait: Path) -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    handle: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    for path in (bait, *bait.rglob("*")):
        libc.inotify_add_watch(handle, os.fsencode(path), OPENED)
    return handle


def _was_opened(handle: int | None) -> bool:
    """Whether a file was opened since the last call."""
    if handle is None:
        return False
    try:
        events = os.read(handle, 65536)
    except BlockingIOError:
        return False
    place = 0
    while place < len(events):
        _, mask, _, length = EVENT.unpack_from(events, place)
        if not mask & IS_FOLDER:
            return True
        place += EVENT.size + length
    return False


def make_bait(parent: Path) -> Path:
    """Create the folder with the bait, unless it exists: images, numbers and a table."""
    import numpy as np
    from PIL import Image

    bait = parent / "outside"
    if not bait.is_dir():
        partial = Path(tempfile.mkdtemp(dir=parent))
        Image.new("RGB", (8, 8), (1, 2, 3)).save(partial / "secret.png")
        Image.new("L", (8, 8), 255).save(partial / "Part0_label.bmp")
        (partial / "secret.bin").write_bytes(np.arange(4096, dtype=np.float32).tobytes())
        (partial / "secret.csv").write_text("image,label\nsecret.png,good\n")
        partial.rename(bait)
    return bait
