"""`inspect-kd export`: make an artifact from a complete run, prove it, or leave nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="A complete run's folder.")],
    to: Annotated[
        str, typer.Option("--to", help="A deployment's name (`inspect-kd ls export`) or a YAML file.")
    ] = "onnx",
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Images for the proof; default: the run's own data set.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; default: into the run's folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the parity figures as JSON.")] = False,
) -> None:
    """Export a run's student. The artifact appears only if it answers like the student on real images.

    Example: inspect-kd export runs/mvtec-omni_ad --to onnx
    """
    from inspect_kd.cli.follow import follow
    from inspect_kd.cli.needs import need_training

    need_training()
    from inspect_kd.train.conclude import export_run

    with follow() as watch:
        artifact, parity = export_run(run, to, data=data, output=output, watch=watch)
    if as_json:
        typer.echo(json.dumps({"artifact": str(artifact), "parity": parity}))
        return
    typer.echo(f"artifact  {artifact} ({artifact.stat().st_size / 1e6:.1f} MB)")
    typer.echo(
        f"parity    score {parity['score']:.1e}, heatmap {parity['heatmap']:.1e}, AUROC change {parity['auroc']}, "
        f"{parity['flips']} decisions flip, on {parity['real_images']} real images at batches {parity['batches']}"
    )
