"""Measure the wall time of calls, with its tail, and their CPU time. Candidates take turns, so a busy moment hits them all.

Unusual here: garbage collection is off while the clock runs, and a slow candidate runs less often in each turn.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TURN, MAX_RUNS = 0.4, 12
"""Seconds and runs after which a candidate's turn ends; a slow candidate runs once a turn."""
WARM_UP = 2
"""First rounds, which are not counted."""


@dataclass(frozen=True, slots=True)
class Times:
    """Duration of each run, in milliseconds."""

    wall_ms: npt.NDArray[np.float64]
    cpu_ms: npt.NDArray[np.float64]
    """Summed over all threads of this process."""

    def figures(self, images: int = 1) -> dict[str, float]:
        """Compute percentiles and throughput per image, for runs of `images` each."""
        p50, p90, p99 = (float(value) / images for value in np.percentile(self.wall_ms, (50, 90, 99)))
        return {
            "p50_ms": p50,
            "p90_ms": p90,
            "p99_ms": p99,
            "cpu_ms": float(np.median(self.cpu_ms)) / images,
            "images_per_second": 1000 / p50,
            "runs": len(self.wall_ms),
        }


def time_in_turns(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = WARM_UP,
    most: int = MAX_RUNS,
    after: Callable[[], object] | None = None,
) -> dict[str, Times]:
    """Time each candidate in `rounds` turns of at most `most` runs. `after` is called after each round."""
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds + warm_up):
            for name, run in runs.items():
                times = _run_turn(run, most)
                if turn >= warm_up:
                    measured[name] += times
            if after is not None:
                after()
    finally:
        if was_enabled:
            gc.enable()
    return {name: _as_times(times) for name, times in measured.items()}


def _run_turn(run: Callable[[], object], most: int) -> list[tuple[float, float]]:
    began, times = time.perf_counter(), []
    for _ in range(most):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
        if time.perf_counter() - began > TURN:
            break
    return times


def _as_times(times: list[tuple[float, float]]) -> Times:
    both = 1e3 * np.array(times, dtype=np.float64).reshape(-1, 2)
    return Times(both[:, 0], both[:, 1])
