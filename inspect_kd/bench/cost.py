"""What a model costs: GFLOP, the file, and the time of one image on one thread of ONNX Runtime.

Everything here works on graphs from bytes (N, H, W, 3) to heatmap and score.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from inspect_kd.export.to_onnx import LARGEST_BATCH, open_session

BATCH = 8
WARM_UP, ROUNDS = 1, 10
TURN, MOST_RUNS = 0.4, 12
"""Seconds of a model's turn and its runs at most: a slow model runs once a turn, or it would take all the time there is."""
STATM = Path("/proc/self/statm")


def to_file(model: nn.Module, path: Path, size: int, *, dynamic: bool = True) -> None:
    """One ONNX file for any batch, or for one image where a model can no more."""
    example = torch.zeros(2 if dynamic else 1, size, size, 3, dtype=torch.uint8)
    shapes = ({0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)},) if dynamic else None
    program = torch.onnx.export(
        model.eval(), (example,), dynamo=True, dynamic_shapes=shapes, opset_version=20, verbose=False
    )
    assert program is not None
    shape = program.model.graph.inputs[0].shape
    if dynamic and (shape is None or isinstance(shape[0], int)):
        # The exporter says nothing when a model's own arithmetic ties it to its example.
        raise ValueError("the exported graph takes batches of one size only")
    program.save(str(path), external_data=False)


def gflop(model: nn.Module, size: int) -> float:
    """Multiplications and additions of one image. The model is frozen for good: it has been trained."""
    model.eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    return float(counter.get_total_flops()) / 1e9


def clock(files: Mapping[str, Path], rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """CPU and wall milliseconds of one image, and of one in a batch; models take turns, so a busy moment hits all.

    A file that does not run is left out.
    """
    sessions = {}
    for name, path in files.items():
        with contextlib.suppress(Exception):
            session = open_session(path.read_bytes(), name, device="cpu", threads=1, allow_cpu=True)
            for batch in (1, BATCH) if not isinstance(session.get_inputs()[0].shape[0], int) else (1,):
                session.run(None, {session.get_inputs()[0].name: _noise(session.get_inputs()[0].shape[1], batch)})
            sessions[name] = session
    single, batched = _turns(sessions, 1, rounds), _turns(sessions, BATCH, max(1, rounds // 3))
    return {
        name: {
            "cpu_ms": float(np.median(times[:, 0])),
            "p50_ms": float(np.median(times[:, 1])),
            "p99_ms": float(np.percentile(times[:, 1], 99)),
            **({"batched_cpu_ms": float(np.median(batched[name][:, 0]))} if len(batched[name]) else {}),
        }
        for name, times in single.items()
    }


def _turns(sessions: Mapping[str, Any], batch: int, rounds: int) -> dict[str, np.ndarray]:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sessions}
    for turn in range(rounds + WARM_UP):
        for name, session in sessions.items():
            given = session.get_inputs()[0]
            if isinstance(given.shape[0], int) and given.shape[0] != batch:
                continue  # locked to another batch by its exporter
            feed = {given.name: _noise(given.shape[1], batch)}
            turn_began = time.perf_counter()
            for _ in range(MOST_RUNS):
                wall, cpu = time.perf_counter(), time.process_time()
                session.run(None, feed)
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                if turn >= WARM_UP:
                    taken[name].append((1e3 * cpu / batch, 1e3 * wall / batch))
                if time.perf_counter() - turn_began > TURN:
                    break
    return {name: np.array(times) for name, times in taken.items()}


def peak_memory(file: Path) -> float | None:
    """MB that a process grows by when it loads a model and looks at images; ONNX Runtime's arena keeps what it once took.

    None where the system does not tell (it is asked as Linux wants to be asked), or the model took the process with it.
    """
    if not STATM.is_file():
        return None
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_grow, args=(str(file), sender))
    process.start()
    sender.close()
    try:
        grown: float | None = receiver.recv()
    except EOFError:
        grown = None
    process.join()
    return grown


def _grow(file: str, answer: Any) -> None:
    import onnxruntime  # noqa: F401, the runtime itself is everybody's

    data = Path(file).read_bytes()
    before = _resident_mb()
    session = open_session(data, file, device="cpu", threads=1, allow_cpu=True)
    given = session.get_inputs()[0]
    for _ in range(5):
        session.run(None, {given.name: _noise(given.shape[1], 1)})
    answer.send(_resident_mb() - before)


def _resident_mb() -> float:
    pages = int(STATM.read_text().split()[1])
    return pages * mmap.PAGESIZE / 2**20


def _noise(size: int, batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (batch, size, size, 3), dtype=np.uint8)


def machine_peak(side: int = 1024, runs: int = 30) -> float:
    """GFLOP/s of one thread in a large matrix product, the most that any graph could reach here: the best of many runs."""
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
