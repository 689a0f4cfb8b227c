"""`inspect-kd bench-latency`: measure the latency of artifacts on this machine, with its tail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspect_kd.cli.echo import echo
from inspect_kd.cli.threads import Threads

if TYPE_CHECKING:
    from inspect_kd.datasets.presentation import Presentation
    from inspect_kd.inspector import Inspector
    from inspect_kd.types import ImageU8

COLUMNS = {
    "p50_ms": "p50 ms",
    "p90_ms": "p90 ms",
    "p99_ms": "p99 ms",
    "cpu_ms": "CPU ms",
    "images_per_second": "images/s",
}
TimedCalls = dict[tuple[str, str], Callable[[], object]]
"""(artifact, row's label) -> call that is timed."""
WHOLE_INSPECTION = "1, from an image"
"""Label of the row for a whole inspection, in the column of batch sizes."""


def bench_latency(
    artifacts: Annotated[list[Path], typer.Argument(help="Artifacts, or folders of runs; several are timed in turns.")],
    batches: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,2,8",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; each runs every artifact up to 12 times.")] = 25,
    image: Annotated[
        Path | None,
        typer.Option(
            help="Image for timing alignment and whole inspections; default: a drawing of the reference where parts are aligned, "
            "else random noise of 1024x1024."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or tensorrt; OpenVINO: cpu, gpu or npu.")] = "cpu",
    threads: Threads = 1,
    spin: Annotated[
        bool,
        typer.Option(
            "--spin", help="Let threads wait by spinning: faster on an idle machine, slower on a small busy one."
        ),
    ] = False,
    bind: Annotated[bool, typer.Option("--bind", help="Reuse the buffers of inputs and outputs.")] = False,
    cuda_graph: Annotated[bool, typer.Option("--cuda-graph", help="Record the GPU's work once and replay it.")] = False,
    allow_cpu: Annotated[
        bool, typer.Option("--allow-cpu", help="Use the CPU if the requested GPU is missing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Time artifacts: wall time p50, p90 and p99, CPU time of all threads and throughput, per image, for each batch size.

    The last row of each artifact is one whole inspection: alignment, resize, model, regions. Where
    parts are aligned, the row above is alignment alone: finding the part and cutting its frame, on
    one thread of OpenCV. Run it on the line's machine beside its other programs, and compare p99
    with the deadline.

    Examples:

        inspect-kd bench-latency runs/mvtec-omni_ad --batches 1,8

        inspect-kd bench-latency part.onnx part.openvino.onnx --threads 2
    """
    from inspect_kd.cli.evaluate import artifact_of
    from inspect_kd.datasets.images import read_image
    from inspect_kd.export.options import RuntimeOptions
    from inspect_kd.inspector import Inspector
    from inspect_kd.stopwatch import time_in_turns

    batch_sizes = _parse_batch_sizes(batches)
    options = RuntimeOptions(
        device=device, threads=threads, allow_cpu=allow_cpu, spinning=spin, bind=bind, cuda_graph=cuda_graph
    )
    paths = [artifact_of(path) for path in artifacts]
    inspectors = {str(path): Inspector(path, options=options) for path in paths}
    latencies: dict[str, dict[str, dict[str, float]]] = {name: {} for name in inspectors}
    for size in batch_sizes:
        calls = {name: _make_model_call(inspector, size) for name, inspector in inspectors.items()}
        for name, times in time_in_turns(calls, rounds).items():
            latencies[name][str(size)] = times.summarise(size)
    # The image is read before the timing, because a camera delivers pixels, not files.
    given_image = None if image is None else read_image(image)
    alignments = _make_alignment_calls(inspectors, given_image)
    inspections = _make_inspection_calls(inspectors, given_image)
    with _one_opencv_thread():
        timed = time_in_turns(alignments, rounds)
    for (name, row), times in (timed | time_in_turns(inspections, rounds)).items():
        latencies[name][row] = times.summarise()
    if as_json:
        typer.echo(json.dumps({"device": device, "threads": threads, "artifacts": latencies}))
    else:
        _print_table(latencies, f"{device}, {threads} thread{'s' * (threads > 1)}; milliseconds per image")


def _parse_batch_sizes(text: str) -> list[int]:
    from inspect_kd.errors import UsageError
    from inspect_kd.export.to_onnx import MAX_BATCH

    words = text.split(",")
    if not all(word.strip().isdecimal() and 1 <= int(word) <= MAX_BATCH for word in words):
        raise UsageError(f"--batches {text}: write sizes from 1 to {MAX_BATCH} separated by commas, such as 1,2,8")
    return [int(word) for word in words]


def _make_model_call(inspector: Inspector, batch_size: int) -> Callable[[], object]:
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (batch_size, inspector.size, inspector.size, 3), dtype=np.uint8)
    return lambda: inspector.predict_batch(noise)


def _make_alignment_calls(inspectors: dict[str, Inspector], given_image: ImageU8 | None) -> TimedCalls:
    """Make a call for each aligned category: it finds the part, and cuts and resizes its frame. The row's label states the image's size."""

    def make(presentation: Presentation, image: ImageU8) -> Callable[[], object]:
        return lambda: presentation.prepare(image).scaled()

    calls: TimedCalls = {}
    for name, inspector in inspectors.items():
        for category, presentation in inspector.presentations.by_category.items():
            if presentation.alignment is None:
                continue
            image = _choose_image(presentation, given_image)
            fault = presentation.prepare(image).fault
            if fault is not None:
                echo(
                    f"{name}: {category}: the part is not found in the image ({fault.reason}), which may take less or more time; "
                    "name an image of this part with --image",
                    err=True,
                )
            calls[name, f"alignment of {category}, {image.shape[1]}x{image.shape[0]}"] = make(presentation, image)
    return calls


def _make_inspection_calls(inspectors: dict[str, Inspector], given_image: ImageU8 | None) -> TimedCalls:
    """Make a call that inspects one image; where categories are presented differently, make one for each category."""

    def make(inspector: Inspector, image: ImageU8, category: str | None) -> Callable[[], object]:
        return lambda: inspector(image, category=category)

    calls: TimedCalls = {}
    for name, inspector in inspectors.items():
        presentations = inspector.presentations
        if presentations.common_view is not None:
            calls[name, WHOLE_INSPECTION] = make(inspector, _choose_image(None, given_image), None)
            continue
        for category, presentation in presentations.by_category.items():
            label = WHOLE_INSPECTION if len(presentations.by_category) == 1 else f"{WHOLE_INSPECTION} of {category}"
            calls[name, label] = make(inspector, _choose_image(presentation, given_image), category)
    return calls


def _choose_image(presentation: Presentation | None, given_image: ImageU8 | None) -> ImageU8:
    """Return the image given with --image; without one, a drawing in which the part is found, or noise if no part is aligned."""
    import numpy as np

    from inspect_kd.datasets.alignment.example import draw_example

    if given_image is not None:
        return given_image
    if presentation is not None and presentation.alignment is not None:
        return draw_example(presentation.alignment)
    return np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Let OpenCV use one thread, so that CPU and wall time agree."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _print_table(latencies: dict[str, dict[str, dict[str, float]]], title: str) -> None:
    from rich.table import Table

    from inspect_kd.plain_console import PlainConsole

    table = Table(title=title, title_justify="left")
    for name in ("artifact", "batch", *COLUMNS.values()):
        table.add_column(name, justify="left" if name == "artifact" else "right")
    for artifact, batches in latencies.items():
        for batch, values in batches.items():
            table.add_row(artifact, batch, *(f"{values[key]:.2f}" for key in COLUMNS))
    PlainConsole().print(table)
