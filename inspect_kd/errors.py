"""Errors that users can cause or fix. Each class has an exit code; each message says what happened, where and what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

MAX_MESSAGE_LENGTH = 2000
"""In characters."""
MAX_PATH_LENGTH = 300
"""In characters, in a message about an OSError."""
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
"""Errors of writing. One without a file name comes from stdout, since files are written under `name_file_in_errors`."""


def printable(text: str) -> str:
    """Escape everything that is not printable: control characters steer a terminal, lone surrogates fit into no file."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def printable_lines(text: str) -> str:
    """Escape each line of a text whose line breaks are the program's own."""
    return "\n".join(map(printable, text.split("\n")))


class InspectKDError(Exception):
    """Base of the errors that the command line prints without a traceback, one line for each argument.

    A line break within an argument comes from a name or a file, and is escaped, so that it cannot fake a line of output.
    """

    exit_code = 1

    def __str__(self) -> str:
        """Escape and shorten the message: it may quote a hostile file."""
        text = "\n".join(printable(str(line)) for line in self.args)
        if len(text) > MAX_MESSAGE_LENGTH:
            # The file is named first and the reason last: cut the middle.
            text = f"{text[: MAX_MESSAGE_LENGTH // 2]} … {text[-MAX_MESSAGE_LENGTH // 2 :]}"
        return text


class GateFailed(InspectKDError):
    """A measured value misses its limit."""

    exit_code = 1


class UsageError(InspectKDError):
    """The call or the recipe is wrong."""

    exit_code = 2


class BadInput(InspectKDError):
    """A file or a data set is broken, empty, hostile or of an unexpected kind."""

    exit_code = 3


class EnvironmentFault(InspectKDError):
    """This machine lacks something: a package, weights, an execution provider, disk space."""

    exit_code = 4


class Interrupted(InspectKDError):
    """The user pressed Ctrl-C."""

    exit_code = 130


@contextlib.contextmanager
def name_file_in_errors(path: Path) -> Iterator[None]:
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
