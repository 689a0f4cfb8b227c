"""`--threads`: one option for every command that opens an artifact."""

from __future__ import annotations

from typing import Annotated

import typer

from inspect_kd.cli.echo import echo


def bound_threads(asked: int) -> int:
    """At most one thread a processor; that fewer are started is printed."""
    from inspect_kd.export.options import usable_processors

    most = usable_processors()
    if asked > most:
        echo(f"--threads {asked}: this machine lets the program use {most} processors; {most} are started", err=True)
    return min(asked, most)


Threads = Annotated[int, typer.Option(min=1, callback=bound_threads, help="Threads of the model.")]
