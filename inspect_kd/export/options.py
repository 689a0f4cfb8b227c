"""Options that every runtime takes. Imports neither NumPy nor torch."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from inspect_kd.errors import UsageError
from inspect_kd.types import NoProgress, Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeOptions:
    """How a runtime executes an artifact."""

    device: str = "cpu"
    threads: int = 1
    """Lowered to the number of processors that this process may use: more threads cost memory and gain nothing."""
    allow_cpu: bool = False
    """Fall back to the CPU where the device is missing; if false, a missing device is an error."""
    spinning: bool = False
    """Waiting threads spin: slightly faster on an idle machine, six times slower on a small busy one."""
    bind: bool = False
    """Bind input and output buffers that are allocated once per batch size."""
    cuda_graph: bool = False
    """Record the GPU's work once and replay it, because at batch 1 launching takes most of the time. Needs `bind`."""
    cache: str | None = None
    """Folder for TensorRT engines; None: the user's cache folder."""
    progress: Progress = field(default_factory=NoProgress)
    """Reports the build of a TensorRT engine."""

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise UsageError(f"--threads {self.threads}: at least 1")
        object.__setattr__(self, "threads", min(self.threads, usable_processors()))
        if self.cuda_graph and not (self.bind and self.device in ("cuda", "tensorrt")):
            raise UsageError(
                "a CUDA graph needs fixed buffers on a GPU: use --cuda-graph with --device cuda and --bind"
            )


def usable_processors() -> int:
    """Count the processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


DEFAULTS = RuntimeOptions()
