"""`inspect-kd export`: make artifacts from a complete run, prove them, or leave nothing but the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inspect_kd.cli.echo import echo

if TYPE_CHECKING:
    from inspect_kd.export.deploy import Conversion

ALL_CPU = "all-cpu"


def export(
    run: Annotated[Path, typer.Argument(help="A complete run's folder.")],
    to: Annotated[
        str,
        typer.Option(
            "--to", help="A deployment's name (`inspect-kd ls export`), several with commas, a YAML file, or all-cpu."
        ),
    ] = "onnx",
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Images for the proof; default: the run's own data set.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; default: into the run's folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the conversion's figures as JSON.")] = False,
) -> None:
    """Export a run's student. An artifact appears only if it answers like the student on real images.

    Beside it lies what became of the student on the way: <artifact>.conversion.html and .json, also where it was refused.
    int8 takes minutes: which convolutions may compute in bytes is measured, one by one.

    Examples:

        inspect-kd export runs/mvtec-omni_ad --to onnx

        inspect-kd export runs/mvtec-omni_ad --to onnx_fp16,openvino

        inspect-kd export runs/mvtec-omni_ad --to all-cpu
    """
    from inspect_kd.cli.needs import need_training

    need_training()
    from inspect_kd.errors import GateFailed, UsageError
    from inspect_kd.export.deploy import deployments_for

    names = deployments_for("cpu") if to == ALL_CPU else to.split(",")
    if output is not None and len(names) > 1:
        raise UsageError(f"--output names one file, --to {to} makes {len(names)}; leave it out")
    refused = []
    for name in names:
        artifact, conversion = _made(run, name, data, output)
        if conversion.missed:
            refused.append(f"{artifact.name}: {conversion.complaint()}")
        if as_json:
            typer.echo(json.dumps({"artifact": str(artifact), **conversion.to_json()}))
        else:
            _tell(artifact, conversion)
    if refused:
        raise GateFailed(
            f"does not answer like the student, no artifact was written: {' | '.join(refused)}. "
            "Beside where it would lie, *.conversion.html tells more"
        )


def _made(run: Path, name: str, data: str | None, output: Path | None) -> tuple[Path, Conversion]:
    from inspect_kd.cli.progress import show_progress
    from inspect_kd.errors import file_named
    from inspect_kd.train.artifacts import export_run

    with show_progress() as progress, file_named(output or run):
        return export_run(run, name, data=data, output=output, progress=progress)


def _tell(artifact: Path, conversion: Conversion) -> None:
    from inspect_kd.report.conversion import speed

    parity: Any = conversion.parity
    state = (
        f"{artifact} ({conversion.file_bytes / 1e6:.1f} MB)" if not conversion.missed else f"refused: {artifact.name}"
    )
    echo(f"artifact  {state}")
    echo(
        f"parity    score {parity.score:.1e}, heatmap {parity.heatmap:.1e}, AUROC change {parity.auroc}, "
        f"{parity.flips + parity.near_flips} decisions flip, on {parity.real_images} real images at batches {parity.batches}"
    )
    told = speed(conversion)
    if told:
        echo(f"speed     {told}")
