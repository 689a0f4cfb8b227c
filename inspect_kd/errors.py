"""What can go wrong in a user's hands. Each class is one exit code; each message says what, where and what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

LONGEST = 2000
"""Characters of a message."""
LONGEST_PATH = 300
"""Characters of a path in a message about the operating system."""
ADVICE = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some space, or write to another disk",
    errno.EFBIG: "raise the limit (ulimit -f), or write to another disk",
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "choose a folder that can be written",
    errno.ENAMETOOLONG: "shorten it",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs",
}
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Writing failed. Where such an error names no file it is stdout's: files are written under `file_named`."""


def printable(text: str) -> str:
    """The text with everything escaped that no file can hold or that steers a terminal, as names on other systems may have it."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def printable_lines(text: str) -> str:
    """The same for a text that the program itself has broken into lines."""
    return "\n".join(map(printable, text.split("\n")))


class InspectKDError(Exception):
    """Base of everything that the command line turns into one clear line instead of a traceback; several arguments are lines.

    A line break within a line comes from a name or a file, and is escaped: it would fake a line of the program's own.
    """

    exit_code = 1

    def __str__(self) -> str:
        """Messages quote what hostile files say of themselves: never pages of it, and nothing that steers a terminal."""
        text = "\n".join(printable(str(line)) for line in self.args)
        if len(text) > LONGEST:
            # What is quoted stands in the middle: the file is named first, the reason last.
            text = f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
        return text


class GateFailed(InspectKDError):
    """The program ran, and what it measured is below the asked-for limit."""

    exit_code = 1


class UsageError(InspectKDError):
    """The call or the recipe is wrong."""

    exit_code = 2


class BadInput(InspectKDError):
    """A file or a data set is broken, empty, hostile or not what it was said to be."""

    exit_code = 3


class EnvironmentFault(InspectKDError):
    """Something is missing on this machine: a package, weights, a provider, disk."""

    exit_code = 4


class Interrupted(InspectKDError):
    """Ctrl-C."""

    exit_code = 130


@contextlib.contextmanager
def file_named(path: Path) -> Iterator[None]:
    """Add a file's name to errors of the operating system that have none: a full disk shows at `write`, which has no name."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def describe_os_error(error: OSError) -> str:
    """One line: which file, what happened, what to do."""
    if error.errno is None:
        return f"{type(error).__name__}: {error}"
    if error.errno == errno.EPIPE and error.filename is None:
        return "stopped: the program that read the output has closed it"
    if error.errno == errno.EBADF and error.filename is None:
        return "the output could not be written: it is closed; leave stdout open, or send it to /dev/null"
    reason = f"{error.strerror}; {ADVICE[error.errno]}" if error.errno in ADVICE else str(error.strerror)
    if error.filename is None:
        return f"the output could not be written: {reason}" if error.errno in DISK_FAULTS else reason
    # Of a copy that failed, the file that could not be written, not the one that was read.
    path = str(error.filename2 if error.errno in DISK_FAULTS and error.filename2 else error.filename)
    if len(path) > LONGEST_PATH:
        path = f"{path[: LONGEST_PATH // 2]} … {path[-LONGEST_PATH // 2 :]}"
    return f"{path}: {reason}"
