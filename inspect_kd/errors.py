"""Errors that users can cause or mend. Each class has its exit code; each message says what happened, where and what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

MAX_LENGTH = 2000
"""Most characters of a message."""
MAX_PATH_LENGTH = 300
"""Most characters of a path in a message about an OSError."""
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
"""Errors of writing. Without a file name they come from stdout: files are written under `file_named`."""


def printable(text: str) -> str:
    """Escape everything that is not printable: control characters steer a terminal, lone surrogates fit into no file."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


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
        if len(text) > MAX_LENGTH:
            # The file is named first and the reason last: cut the middle.
            text = f"{text[: MAX_LENGTH // 2]} … {text[-MAX_LENGTH // 2 :]}"
        return text


class GateFailed(InspectKDError):
    """A measured value is below the limit that the user set."""

    exit_code = 1


class UsageError(InspectKDError):
    """The call or the recipe is wrong."""

    exit_code = 2


class BadInput(InspectKDError):
    """A file or a data set is broken, empty, hostile or of another kind than expected."""

    exit_code = 3


class EnvironmentFault(InspectKDError):
    """This machine lacks something: a package, weights, an execution provider, disk space."""

    exit_code = 4


class Interrupted(InspectKDError):
    """The user pressed Ctrl-C."""

    exit_code = 130


@contextlib.contextmanager
def file_named(path: Path) -> Iterator[None]:
    """Add a file's name to OSErrors that have none, such as that of `write` on a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def describe_os_error(error: OSError) -> str:
    """Describe an OSError in one line: which file, what happened, what to do."""
    if error.errno is None:
        return f"{type(error).__name__}: {error}"
    if error.errno == errno.EPIPE and error.filename is None:
        return "stopped: the program that read the output has closed it"
    if error.errno == errno.EBADF and error.filename is None:
        return "the output could not be written: it is closed; leave stdout open, or send it to /dev/null"
    reason = f"{error.strerror}; {ADVICE[error.errno]}" if error.errno in ADVICE else str(error.strerror)
    if error.filename is None:
        return f"the output could not be written: {reason}" if error.errno in DISK_FAULTS else reason
    # `filename2` is the target of a copy: a full disk is a fault of the target, not of the source.
    path = str(error.filename2 if error.errno in DISK_FAULTS and error.filename2 else error.filename)
    if len(path) > MAX_PATH_LENGTH:
        path = f"{path[: MAX_PATH_LENGTH // 2]} … {path[-MAX_PATH_LENGTH // 2 :]}"
    return f"{path}: {reason}"
