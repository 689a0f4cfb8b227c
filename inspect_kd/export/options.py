"""How a runtime is to work on this machine: one value for all runtimes, NumPy-free and torch-free."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from inspect_kd.errors import UsageError
from inspect_kd.types import NoProgress, Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeOptions:
    device: str = "cpu"
    threads: int = 1
    """More than this process may use processors are never started: each costs memory, and none is faster."""
    allow_cpu: bool = False
    """Go on without the device that was asked for; without it that is an error."""
    spinning: bool = False
    """Waiting threads burn their core: a little sooner on an idle machine, six times later on a busy small one."""
    bind: bool = False
    """Inputs and outputs lie in buffers that are made once for each size of batch."""
    cuda_graph: bool = False
    """The GPU's work is recorded once and played again: at batch 1 most of the time is launching. Takes `bind`."""
    cache: str | None = None
    """Where engines that this machine built are kept; None: the user's cache folder."""
    progress: Progress = field(default_factory=NoProgress)
    """Who follows the building of an engine."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise UsageError(f"--threads {self.threads}: at least 1")
        object.__setattr__(self, "threads", min(self.threads, usable_processors()))
        if self.cuda_graph and not (self.bind and self.device in ("cuda", "tensorrt")):
            raise UsageError(
                "a CUDA graph plays on fixed buffers of a GPU: --cuda-graph takes --device cuda and --bind"
            )


def usable_processors() -> int:
    """How many this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


DEFAULTS = RuntimeOptions()
