"""Measure the wall time of calls, including its tail, and their CPU time. Candidates take turns, so that a busy moment affects all.

Unusual here: garbage collection is off while the clock runs, and a slow candidate runs less often in each turn.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Key = TypeVar("Key", bound=Hashable)
"""Type of a candidate's name."""
MAX_TURN_S, MAX_RUNS = 0.4, 12
"""A candidate's turn ends after this time or number of runs; a slow candidate runs once per turn."""
WARM_UP = 2
"""Number of first rounds that are not counted."""


@dataclass(frozen=True, slots=True)
class Times:
    """Duration of each run, in milliseconds."""

    wall_ms: npt.NDArray[np.float64]
    cpu_ms: npt.NDArray[np.float64]
    """Summed over all threads of this process."""

    def summarise(self, images: int = 1) -> dict[str, float]:
        """Compute percentiles and throughput per image, for runs of `images` images each."""
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
    runs: Mapping[Key, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = WARM_UP,
    max_runs: int = MAX_RUNS,
    after_round: Callable[[], object] | None = None,
) -> dict[Key, Times]:
    """Time each candidate in `rounds` turns of at most `max_runs` runs."""
    measured: dict[Key, list[tuple[float, float]]] = {name: [] for name in runs}
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds + warm_up):
            for name, run in runs.items():
                times = _run_turn(run, max_runs)
                if turn >= warm_up:
                    measured[name] += times
            if after_round is not None:
                after_round()
    finally:
        if was_enabled:
            gc.enable()
    return {name: _as_times(times) for name, times in measured.items()}


def _run_turn(run: Callable[[], object], max_runs: int) -> list[tuple[float, float]]:
    began, times = time.perf_counter(), []
    for _ in range(max_runs):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
        if time.perf_counter() - began > MAX_TURN_S:
            break
    return times


def _as_times(times: list[tuple[float, float]]) -> Times:
    milliseconds = 1e3 * np.array(times, dtype=np.float64).reshape(-1, 2)
    return Times(milliseconds[:, 0], milliseconds[:, 1])
