"""The command line: one file a command, nothing heavy imported before a command runs.

Exit codes: 0 fine, 1 a gate failed, 2 usage, 3 bad input, 4 environment.
"""

from __future__ import annotations

import sys

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
from inspect_kd.errors import InspectKDError

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
    typer.echo(__version__)


def main() -> None:
    """Entry point: a user's error is one clear line, anything else is a bug and keeps its traceback."""
    # A training on several devices, and loaders' workers, are started by libraries.
    protect_later_processes()
    try:
        app()
    except InspectKDError as error:
        typer.echo(f"inspect-kd: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # `inspect-kd predict … | head` is no fault.
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        typer.echo("inspect-kd: stopped; `inspect-kd train --resume` goes on with a training", err=True)
        sys.exit(130)
