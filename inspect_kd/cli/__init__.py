"""The command line: one file a command, nothing heavy imported before a command runs.

Exit codes: 0 fine, 1 a gate failed, 2 usage, 3 bad input, 4 environment.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

import typer

from inspect_kd import __version__
from inspect_kd.child_process import protect_later_processes
from inspect_kd.cli import (
    bench,
    bench_latency,
    data,
    demo,
    doctor,
    evaluate,
    export,
    label_next,
    predict,
    sign,
    train,
    ui,
    zoo,
)
from inspect_kd.cli.echo import echo
from inspect_kd.errors import EnvironmentFault, InspectKDError, Interrupted, UsageError, describe_os_error

EPILOG = "Exit codes: 0 fine, 1 a gate failed, 2 usage, 3 bad input, 4 environment. Start with: inspect-kd demo"

app = typer.Typer(
    name="inspect-kd",
    help="Anomaly detection for industrial inspection: big teachers look once, a small student looks at every part.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("export")(export.export)
app.command("predict")(predict.predict)
app.command("ui")(ui.ui)
app.command("label-next")(label_next.label_next)
app.command("bench")(bench.bench)
app.command("bench-latency")(bench_latency.bench_latency)
app.add_typer(data.app, name="data")
app.command("keygen")(sign.keygen)
app.command("sign")(sign.sign)
app.command("verify")(sign.verify)
app.command("ls")(zoo.ls)
app.command("cp")(zoo.cp)
app.command("doctor")(doctor.doctor)


@app.command("version")
def version() -> None:
    """Print the version."""
    echo(__version__)


def main() -> None:
    """Entry point: a user's error or a fault of the machine is one line, anything else is a bug and keeps its traceback."""
    replace_closed_streams()
    # A training on several devices, and loaders' workers, are started by libraries.
    protect_later_processes()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does it: a name that is not UTF-8 ends no command
    try:
        with faults_as_errors():
            app()
    except InspectKDError as error:
        with contextlib.suppress(OSError):
            echo(f"inspect-kd: {error}", err=True)
        drop_unwritten_output()
        sys.exit(error.exit_code)


def replace_closed_streams() -> None:
    """Give each standard stream that the caller has closed something to read from or to write to.

    What goes to a closed stdout is a fault (a handle that takes no writing), never lost without a word; stderr's is dropped.
    Taking the free numbers 0 to 2 also keeps files that are opened later from getting a library's messages.
    """
    for name, mode, flags in (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, flags)
            os.set_inheritable(handle, True)
            setattr(sys, name, open(handle, mode, encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115, PTH123


@contextlib.contextmanager
def faults_as_errors() -> Iterator[None]:
    """Turn faults of the machine, and Ctrl-C, into errors of one line with an exit code of their own."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(describe_os_error(error)) from error
    except MemoryError as error:
        raise EnvironmentFault("out of memory: close other programs, or ask for less at once") from error
    except SystemExit as end:
        # Typer and Rich answer a closed pipe with 1, which means a failed gate here, and Ctrl-C without a word.
        causes = causes_of(end) if end.code else []
        for cause in causes:
            if isinstance(cause, BrokenPipeError):
                raise EnvironmentFault(describe_os_error(cause)) from cause
            if isinstance(cause, EOFError):
                raise UsageError(
                    "a question was not answered: the input has ended; `--help` names the option"
                ) from cause
            if isinstance(cause, KeyboardInterrupt):
                resume = "; `inspect-kd train --resume` goes on with the training" if sys.argv[1:2] == ["train"] else ""
                raise Interrupted(f"stopped{resume}") from cause
        raise


def causes_of(error: BaseException) -> list[BaseException]:
    """The exceptions during whose handling this one was raised, the latest first."""
    causes = []
    while error.__context__ is not None:
        error = error.__context__
        causes.append(error)
    return causes


def drop_unwritten_output() -> None:
    """Forget what a closed pipe or a full disk did not take: at exit Python would try again, and end with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
