"""`inspect-kd export`: export a complete run's student and verify the artifacts."""

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
            "--to",
            help="A deployment's name (`inspect-kd ls export`), several separated by commas, a YAML file, or all-cpu: every "
            "deployment for CPUs.",
        ),
    ] = "onnx",
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Images for the verification; default: the run's data set.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: in the run's folder.")
    ] = None,
    zones: Annotated[
        Path | None,
        typer.Option(
            help="Other zones for the artifact: its thresholds are calibrated with them, nothing is trained. Needs --output."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the conversion's figures as JSON.")] = False,
) -> None:
    """Export a run's student. The artifact is written only if its predictions match the student's on real images.

    A conversion report is written beside it, also after a refusal: <artifact>.conversion.html and
    .json. int8 takes minutes, because the effect of each convolution in 8 bit is measured.

    Examples:

        inspect-kd export runs/mvtec-omni_ad --to onnx

        inspect-kd export runs/mvtec-omni_ad --to onnx_fp16,openvino

        inspect-kd export runs/mvtec-omni_ad --to all-cpu

        inspect-kd export runs/boards-omni_ad --zones zones.yaml --output boards-2.onnx
    """
    from inspect_kd.cli.needs import require_training

    require_training()
    from inspect_kd import api
    from inspect_kd.errors import GateFailed, UsageError
    from inspect_kd.export.deploy import deployments_for

    names = deployments_for("cpu") if to == ALL_CPU else to.split(",")
    if output is not None and len(names) > 1:
        raise UsageError(f"--output names one file, but --to {to} makes {len(names)}; leave --output out")
    refused = []
    for name in names:
        artifact, conversion = api.Run(run).convert(name, data=data, output=output, zones=zones)
        if conversion.exceeded_limits:
            refused.append(f"{artifact.name}: {conversion.describe_exceeded_limits()}")
        if as_json:
            typer.echo(json.dumps({"artifact": str(artifact), **conversion.to_json()}))
        else:
            _print_summary(artifact, conversion)
    if refused:
        raise GateFailed(api.describe_refused_artifacts(refused))


def _print_summary(artifact: Path, conversion: Conversion) -> None:
    from inspect_kd.report.conversion import describe_speed

    parity: Any = conversion.parity
    outcome = (
        f"{artifact} ({conversion.file_bytes / 1e6:.1f} MB)"
        if not conversion.exceeded_limits
        else f"refused: {artifact.name}"
    )
    echo(f"artifact  {outcome}")
    echo(
        f"parity    score {parity.score:.1e}, heatmap {parity.heatmap:.1e}, AUROC change {parity.auroc}, "
        f"{parity.flips + parity.near_flips} decisions flip, on {parity.real_images} real images at batches {parity.batches}"
    )
    speedup = describe_speed(conversion)
    if speedup:
        echo(f"speed     {speedup}")
