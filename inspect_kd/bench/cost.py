"""Measure the cost of a model: GFLOP, file size, memory, and the time of one image on one thread of ONNX Runtime.

All graphs take uint8 images (N, H, W, 3) and give heatmap and score.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from inspect_kd.child_process import spawn_process
from inspect_kd.export.options import RuntimeOptions
from inspect_kd.export.to_onnx import MAX_BATCH, open_session
from inspect_kd.stopwatch import time_in_turns

BATCH = 8
WARM_UP, ROUNDS = 1, 10
PROC_STATM = Path("/proc/self/statm")


def export_file(model: nn.Module, path: Path, size: int, *, dynamic: bool = True) -> None:
    """Export to ONNX for batches of any size, or, with `dynamic=False`, for single images."""
    example = torch.zeros(2 if dynamic else 1, size, size, 3, dtype=torch.uint8)
    shapes = ({0: torch.export.Dim("batch", min=1, max=MAX_BATCH)},) if dynamic else None
    program = torch.onnx.export(
        model.eval(), (example,), dynamo=True, dynamic_shapes=shapes, opset_version=20, verbose=False
    )
    assert program is not None
    shape = program.model.graph.inputs[0].shape
    if dynamic and (shape is None or isinstance(shape[0], int)):
        # The exporter gives no error when a model's arithmetic depends on the size of the example.
        raise ValueError("the exported graph takes batches of one size only")
    program.save(str(path), external_data=False)


def count_gflop(model: nn.Module, size: int) -> float:
    """Count multiplications and additions for one image. Freezes the model permanently."""
    model.eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    return float(counter.get_total_flops()) / 1e9


def time_files(files: Mapping[str, Path], rounds: int = ROUNDS) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Measure CPU and wall milliseconds of one image, alone and in a batch; models take turns, so that a busy moment affects all.

    Returns the times by name, and the errors of files that do not run.
    """
    sessions, failures = {}, {}
    for name, path in files.items():
        try:
            session = open_session(path.read_bytes(), name, RuntimeOptions(allow_cpu=True))
            for batch in (1, BATCH) if not isinstance(session.get_inputs()[0].shape[0], int) else (1,):
                _make_run(session, batch)()
            sessions[name] = session
        except Exception as error:
            # Any error of a runtime is the result of that file.
            failures[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    single = time_in_turns({name: _make_run(session, 1) for name, session in sessions.items()}, rounds, warm_up=WARM_UP)
    # Files that were exported for single images are left out.
    with_batches = {
        name: _make_run(session, BATCH)
        for name, session in sessions.items()
        if not isinstance(session.get_inputs()[0].shape[0], int)
    }
    batched = time_in_turns(with_batches, max(1, rounds // 3), warm_up=WARM_UP)
    costs = {
        name: {
            **{key: times.summarise()[key] for key in ("cpu_ms", "p50_ms", "p99_ms")},
            **({"batched_cpu_ms": batched[name].summarise(BATCH)["cpu_ms"]} if name in batched else {}),
        }
        for name, times in single.items()
    }
    return costs, failures


def _make_run(session: Any, batch: int) -> Callable[[], object]:
    """Return a function that runs the session on one batch of noise."""
    model_input = session.get_inputs()[0]
    feed = {model_input.name: _noise(model_input.shape[1], batch)}
    return lambda: session.run(None, feed)


def measure_memory(file: Path) -> float | None:
    """Measure by how many MB a process grows when it loads and runs a model; ONNX Runtime's arena keeps its memory.

    None without /proc (Linux only), or if the model ended the process.
    """
    if not PROC_STATM.is_file():
        return None
    receiver, sender = Pipe(duplex=False)
    process = spawn_process(_send_growth, str(file), sender)
    sender.close()
    try:
        growth_mb: float | None = receiver.recv()
    except EOFError:
        growth_mb = None
    process.join()
    return growth_mb


def _send_growth(file: str, sender: Any) -> None:
    import onnxruntime  # noqa: F401, imported before the measurement, since every model needs it

    data = Path(file).read_bytes()
    before = _resident_mb()
    session = open_session(data, file, RuntimeOptions(allow_cpu=True))
    model_input = session.get_inputs()[0]
    for _ in range(5):
        session.run(None, {model_input.name: _noise(model_input.shape[1], 1)})
    sender.send(_resident_mb() - before)


def _resident_mb() -> float:
    pages = int(PROC_STATM.read_text().split()[1])
    return pages * mmap.PAGESIZE / 2**20


def _noise(size: int, batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (batch, size, size, 3), dtype=np.uint8)


def measure_peak_gflops(side: int = 1024, runs: int = 30) -> float:
    """Measure the GFLOP/s of one thread in a large matrix product (the best of many runs): no graph is faster on this machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a, b = torch.rand(side, side), torch.rand(side, side)
    seconds = []
    for _ in range(runs):
        began = time.process_time()
        torch.mm(a, b)
        seconds.append(time.process_time() - began)
    torch.set_num_threads(threads)
    return 2 * side**3 / min(seconds) / 1e9
