"""What a call costs: wall time with its tail, and CPU time. Several candidates take turns, so that a busy moment hits all.

Unusual here: garbage is not collected while the clock runs, and a slow candidate runs less often in a turn, not less fairly.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TURN, MOST_RUNS = 0.4, 12
"""Seconds of a candidate's turn and its runs at most: a slow one runs once a turn, or it would take all the time there is."""
WARM_UP = 2
"""First turns that do not count."""


@dataclass(frozen=True, slots=True)
class Times:
    """Of each run, in milliseconds."""

    wall_ms: npt.NDArray[np.float64]
    cpu_ms: npt.NDArray[np.float64]
    """Of all threads of this process together."""

    def figures(self, images: int = 1) -> dict[str, float]:
        """Of one image, where a run was of so many."""
        p50, p90, p99 = (float(value) / images for value in np.percentile(self.wall_ms, (50, 90, 99)))
        return {
            "p50_ms": p50,
            "p90_ms": p90,
            "p99_ms": p99,
            "cpu_ms": float(np.median(self.cpu_ms)) / images,
            "images_per_second": 1000 / p50,
            "runs": len(self.wall_ms),
        }


def take_turns(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = WARM_UP,
    most: int = MOST_RUNS,
    after: Callable[[], object] | None = None,
) -> dict[str, Times]:
    """Each candidate `rounds` times, at most `most` runs a turn. `after` is called after each round."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds + warm_up):
            for name, run in runs.items():
                times = _turn(run, most)
                if turn >= warm_up:
                    taken[name] += times
            if after is not None:
                after()
    finally:
        if collecting:
            gc.enable()
    return {name: _as_times(times) for name, times in taken.items()}


def _turn(run: Callable[[], object], most: int) -> list[tuple[float, float]]:
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
