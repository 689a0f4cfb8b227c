"""Show a data set's terms, ask for consent, and download it, for `inspect-kd data get` and `inspect-kd train`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from inspect_kd.cli.echo import echo

if TYPE_CHECKING:
    from inspect_kd.datasets.manifest import Manifest


def download(manifest: Manifest, *, accepted: bool, option: str) -> Path:
    """Show the terms of a data set, ask whether they are accepted, and download it.

    `accepted` skips the question; `option` is the command's option that does so, for the message.
    """
    from inspect_kd.datasets.fetch import get
    from inspect_kd.errors import Interrupted, UsageError
    from inspect_kd.progress_display import show_progress

    for line in manifest.describe_download():
        echo(line, err=True)
    is_needed = manifest.source.by_hand is None and not manifest.is_downloaded()
    if is_needed and not accepted and not ask("Accept the licence and download it now?"):
        raise UsageError(f"{manifest.title} was not downloaded: the licence was not accepted; {option} accepts it")
    try:
        with show_progress() as progress:
            return get(manifest, progress)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"stopped: the download of {manifest.title} is not complete; run the command again to finish it"
        ) from stop


def ask(question: str) -> bool:
    """Ask a question on stderr; the default answer is no."""
    from inspect_kd.errors import Interrupted

    try:
        return typer.confirm(question, err=True)
    except typer.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            raise  # `cli.convert_faults` has the message about the end of the input
        raise Interrupted("stopped at the question: nothing was downloaded") from abort


def check_download_is_possible(manifests: Iterable[Manifest], *, accepted: bool) -> None:
    """Raise EnvironmentFault if a data set must be downloaded by hand, or if consent is needed but there is no terminal to ask on."""
    from inspect_kd.datasets import describe_missing
    from inspect_kd.errors import EnvironmentFault

    for manifest in manifests:
        if manifest.source.by_hand is not None or not (accepted or is_at_terminal()):
            raise EnvironmentFault(describe_missing(manifest))


def is_at_terminal() -> bool:
    """Return whether a person can see a question, which is on stderr, and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()
