"""The command line: one module for each command; heavy imports happen inside commands.

Exit codes: 0 success, 1 a gate failed, 2 usage, 3 bad input, 4 environment, 130 Ctrl-C.
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

EPILOG = "Exit codes: 0 success, 1 a gate failed, 2 usage, 3 bad input, 4 environment. Start with: inspect-kd demo"

app = typer.Typer(
    name="inspect-kd",
    help="Anomaly detection for industrial inspection: distil large teacher models into a small student that inspects every part.",
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
    """Run the command line. Expected errors print one line; any other exception is a bug and prints its traceback."""
    replace_closed_streams()
    # Covers the processes that libraries start for data loading and for several devices.
    protect_later_processes()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # like stderr, so that file names need not be valid UTF-8
    try:
        with convert_faults():
            app()
    except InspectKDError as error:
        with contextlib.suppress(OSError):
            echo(f"inspect-kd: {error}", err=True)
        drop_unwritten_output()
        sys.exit(error.exit_code)


def replace_closed_streams() -> None:
    """Replace standard streams that the caller has closed.

    Writing to a closed stdout raises an error (its handle is read-only); text for a closed stderr is dropped. Occupying the
    descriptors 0 to 2 also keeps a library's messages out of files that are opened later.
    """
    for name, mode, flags in (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, flags)
            os.set_inheritable(handle, True)
            setattr(sys, name, open(handle, mode, encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115, PTH123


@contextlib.contextmanager
def convert_faults() -> Iterator[None]:
    """Turn OSError, MemoryError, closed pipes and Ctrl-C into errors with one line and an exit code."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFault(describe_os_error(error)) from error
    except MemoryError as error:
        raise EnvironmentFault("out of memory: close other programs, or use smaller batches or images") from error
    except SystemExit as exit_request:
        # Typer and Rich exit with 1 on a closed pipe, which means a failed gate here, and print nothing on Ctrl-C.
        causes = list_causes(exit_request) if exit_request.code else []
        for cause in causes:
            if isinstance(cause, BrokenPipeError):
                raise EnvironmentFault(describe_os_error(cause)) from cause
            if isinstance(cause, EOFError):
                raise UsageError(
                    "the input ended before a question was answered; `--help` lists the option that answers it"
                ) from cause
            if isinstance(cause, KeyboardInterrupt):
                resume = "; `inspect-kd train --resume` continues the training" if sys.argv[1:2] == ["train"] else ""
                raise Interrupted(f"stopped{resume}") from cause
        raise


def list_causes(error: BaseException) -> list[BaseException]:
    """List the exceptions during whose handling this one was raised, the latest first."""
    causes = []
    while error.__context__ is not None:
        error = error.__context__
        causes.append(error)
    return causes


def drop_unwritten_output() -> None:
    """Discard output that a closed pipe or full disk refused; at exit Python would write it again and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
