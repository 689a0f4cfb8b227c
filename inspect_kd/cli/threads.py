"""The option `--threads` of all commands that open an artifact."""

from __future__ import annotations

from typing import Annotated

import typer

from inspect_kd.cli.echo import echo


def bound_threads(requested: int) -> int:
    """Limit the threads to the number of processors, and print a warning if fewer are used than requested."""
    from inspect_kd.export.options import usable_processors

    processors = usable_processors()
    if requested > processors:
        echo(f"--threads {requested}: only {processors} processors are available; using {processors} threads", err=True)
    return min(requested, processors)


Threads = Annotated[int, typer.Option(min=1, callback=bound_threads, help="Threads of the model.")]
