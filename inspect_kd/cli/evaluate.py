"""`inspect-kd eval`: measure a run or an artifact on a data set, with optional gates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspect_kd.cli.threads import Threads

if TYPE_CHECKING:
    from inspect_kd.evaluate import Evaluation


MAX_LISTED = 10
"""How many images are listed in which no part could be found by the alignment."""


def evaluate(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_ARTIFACT", help="A run's folder or an artifact.")],
    data: Annotated[str, typer.Option("--data", "-d", help="A data set's name, a manifest, or a folder.")],
    minimum: Annotated[
        list[str] | None,
        typer.Option("--min", help="Exit 1 if a metric is lower: metric=number, e.g. image_auroc=0.95. Repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or tensorrt.")] = "cpu",
    threads: Threads = 2,
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="Use the CPU if the requested GPU is missing.")
    ] = False,
    trusted: Annotated[
        bool, typer.Option("--trusted", help="Refuse an artifact that no key in the trust store has signed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure a run or an artifact: image and pixel AUROC, AP and F1max, AUPRO, and the decisions of its thresholds.

    Example: inspect-kd eval runs/mvtec-omni_ad --data mvtec --min image_auroc=0.98
    """
    from inspect_kd import api
    from inspect_kd.datasets import open_dataset
    from inspect_kd.evaluate import parse_gates
    from inspect_kd.inspector import Inspector
    from inspect_kd.signing import trust_store

    gates = parse_gates(minimum or [])
    trust = trust_store() if trusted else None
    inspector = Inspector(artifact_of(source), device=device, threads=threads, allow_cpu=allow_cpu, trust=trust)
    evaluation = api.evaluate_artifact(inspector, open_dataset(data))
    if as_json:
        typer.echo(json.dumps(evaluation.to_json()))
    else:
        print_tables(evaluation)
    evaluation.gate(gates)


def artifact_of(source: Path) -> Path:
    """Return the artifact in a run's folder, or the path itself."""
    return source / f"{source.resolve().name}.onnx" if source.is_dir() else source


def print_tables(evaluation: Evaluation) -> None:
    """Print metrics and decisions as tables."""
    from rich.table import Table

    from inspect_kd.metrics import METRICS
    from inspect_kd.plain_console import PlainConsole

    console = PlainConsole()
    table = Table("category", *METRICS, title="metrics")
    notes = set()
    for category, measures in evaluation.measures.items():
        values = [measures[name].value for name in METRICS]
        table.add_row(category, *["–" if value is None else f"{value:.4f}" for value in values])
        notes |= {f"{category}: {name}: {measures[name].reason}" for name in METRICS if measures[name].value is None}
    console.print(table)
    for note in sorted(notes):
        console.print(f"– {note}")
    not_found_counts = evaluation.not_found()
    shows_not_found = any(any(counts.values()) for counts in not_found_counts.values())
    columns = ["category", "truth", "OK", "RE-INSPECT", "NG", *(["of these not found"] if shows_not_found else [])]
    table = Table(*columns, title="decisions")
    for category, truths in evaluation.decisions().items():
        for truth, counts in truths.items():
            cells = [str(counts[decision]) for decision in ("OK", "RE-INSPECT", "NG")]
            table.add_row(
                category, truth, *cells, *([str(not_found_counts[category][truth])] if shows_not_found else [])
            )
    console.print(table)
    not_found_verdicts = [verdict for verdict in evaluation.verdicts if verdict.not_found is not None]
    for verdict in not_found_verdicts[:MAX_LISTED]:
        console.print(f"– not found: {verdict.sample.image}: {verdict.not_found}")
    if len(not_found_verdicts) > MAX_LISTED:
        console.print(f"– and {len(not_found_verdicts) - MAX_LISTED} more that were not found")
