"""`inspect-kd bench-latency`: what an artifact costs on this machine, with the tail, in turns where there are several."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inspect_kd.cli.threads import Threads

if TYPE_CHECKING:
    from inspect_kd.inspector import Inspector

SHOWN = {
    "p50_ms": "p50 ms",
    "p90_ms": "p90 ms",
    "p99_ms": "p99 ms",
    "cpu_ms": "CPU ms",
    "images_per_second": "images/s",
}
WHOLE = "1, from an image"


def bench_latency(
    artifacts: Annotated[list[Path], typer.Argument(help="Artifacts, or runs' folders; several take turns.")],
    batches: Annotated[str, typer.Option(help="Sizes of batch, with commas.")] = "1,2,8",
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each; at most 12 runs a turn.")] = 25,
    image: Annotated[
        Path | None,
        typer.Option(help="Time the whole inspection of this image too; default: a drawn one of 1024x1024."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or tensorrt; OpenVINO: cpu, gpu or npu.")] = "cpu",
    threads: Threads = 1,
    spin: Annotated[
        bool, typer.Option("--spin", help="Threads wait by spinning: sooner when idle, a trap on a busy small box.")
    ] = False,
    bind: Annotated[bool, typer.Option("--bind", help="Inputs and outputs in buffers that are made once.")] = False,
    cuda_graph: Annotated[bool, typer.Option("--cuda-graph", help="Record the GPU's work, play it again.")] = False,
    allow_cpu: Annotated[bool, typer.Option("--allow-cpu", help="Go on without the GPU that was asked for.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Time artifacts: wall p50, p90, p99, CPU time of all threads, throughput, by size of batch, an image each.

    The last row of each is one whole inspection: resize, model, regions. Run it on the line's own machine, beside what else
    runs there: p99 is what a deadline is held against.

    Examples:

        inspect-kd bench-latency runs/mvtec-omni_ad --batches 1,8

        inspect-kd bench-latency part.onnx part.openvino.onnx --threads 2
    """
    from inspect_kd.cli.evaluate import artifact_of
    from inspect_kd.export.options import RuntimeOptions
    from inspect_kd.inspector import Inspector
    from inspect_kd.stopwatch import take_turns

    sizes = _sizes(batches)
    options = RuntimeOptions(
        device=device, threads=threads, allow_cpu=allow_cpu, spinning=spin, bind=bind, cuda_graph=cuda_graph
    )
    paths = [artifact_of(path) for path in artifacts]
    inspectors = {str(path): Inspector(path, options=options) for path in paths}
    told: dict[str, dict[str, dict[str, float]]] = {name: {} for name in inspectors}
    for size in sizes:
        looks = {name: _look(inspector, size) for name, inspector in inspectors.items()}
        for name, times in take_turns(looks, rounds).items():
            told[name][str(size)] = times.figures(size)
    picture = _picture(image)
    wholes: dict[str, Callable[[], object]] = {
        name: lambda inspector=inspector: inspector(picture)  # type: ignore[misc]
        for name, inspector in inspectors.items()
    }
    for name, times in take_turns(wholes, rounds).items():
        told[name][WHOLE] = times.figures()
    if as_json:
        typer.echo(json.dumps({"device": device, "threads": threads, "artifacts": told}))
    else:
        _show(told, f"{device}, {threads} thread{'s' * (threads > 1)}; milliseconds and images of one image")


def _sizes(text: str) -> list[int]:
    from inspect_kd.errors import UsageError
    from inspect_kd.export.to_onnx import LARGEST_BATCH

    words = text.split(",")
    if not all(word.strip().isdecimal() and 1 <= int(word) <= LARGEST_BATCH for word in words):
        raise UsageError(f"--batches {text}: sizes from 1 to {LARGEST_BATCH} with commas, such as 1,2,8")
    return [int(word) for word in words]


def _look(inspector: Inspector, size: int) -> Callable[[], object]:
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (size, inspector.size, inspector.size, 3), dtype=np.uint8)
    return lambda: inspector.predict_batch(noise)


def _picture(image: Path | None) -> Any:
    """Decoded once: what a camera gives is no file."""
    import numpy as np

    from inspect_kd.datasets.images import read_image

    if image is not None:
        return read_image(image)
    return np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)


def _show(told: dict[str, dict[str, dict[str, float]]], title: str) -> None:
    from rich.table import Table

    from inspect_kd.cli.console import PlainConsole

    table = Table(title=title, title_justify="left")
    for name in ("artifact", "batch", *SHOWN.values()):
        table.add_column(name, justify="left" if name == "artifact" else "right")
    for artifact, batches in told.items():
        for batch, figures in batches.items():
            table.add_row(artifact, batch, *(f"{figures[key]:.2f}" for key in SHOWN))
    PlainConsole().print(table)
