"""What can go wrong in a user's hands. Each class is one exit code; each message says what, where and what to do."""

LONGEST = 2000
"""Characters of a message."""


def printable(text: str) -> str:
    """The text with everything escaped that no file can hold or that steers a terminal, as names on other systems may have it."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class InspectKDError(Exception):
    """Base of everything that the command line turns into one clear line instead of a traceback."""

    exit_code = 1

    def __str__(self) -> str:
        """Messages quote what hostile files say of themselves: never pages of it, and nothing that steers a terminal."""
        text = super().__str__()
        if len(text) > LONGEST:
            # What is quoted stands in the middle: the file is named first, the reason last.
            text = f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
        return "\n".join(map(printable, text.split("\n")))


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
