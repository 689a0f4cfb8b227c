"""The worker process: feeds inputs to a target until the time is up or all inputs are done, and reports the results.

Counters that must survive a crash are in shared memory. Run as `python -m tests.fuzzing.worker`; its argument is a WorkerConfig
as JSON.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import struct
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random

from inspect_kd.errors import BadInput, EnvironmentFault, GateFailed, InspectKDError, UsageError
from tests.fuzzing.targets import TARGETS, Target
from tests.fuzzing.watch import Watch, make_bait

try:
    import resource
except ImportError:  # Windows: only the harness's timeout applies
    resource = None  # type: ignore[assignment]

COUNTER_NAMES = (
    "index",
    "accepted",
    "BadInput",
    "UsageError",
    "EnvironmentFault",
    "GateFailed",
    "findings",
    "base_kb",
    "peak_kb",
    "done",
)
LAYOUT = struct.Struct(f"{len(COUNTER_NAMES)}q")
MEMORY_EXIT_CODE = 17
"""Exit code of a worker that exceeded its memory limit; the next worker continues."""
MAX_MESSAGE_LENGTH = 4000
"""Characters that the text of the program's own errors may have."""


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """Which inputs a worker feeds to which target, and its limits."""

    target: str
    sandbox: str
    counters_file: str
    seed: int = 0
    start: int = 0
    stop: int = 10**9
    seconds: float = 1e9
    """Counted from the first input."""
    cpu_s: int = 5
    megabytes: int = 1536
    """Memory that the worker may use beyond its size at the start."""
    sample_every_s: float = 1.0
    """Interval of memory samples."""
    replay: str = ""
    """Path of a file that is the only input."""


class Counters:
    """Counters in shared memory, which outlive the process."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(LAYOUT.pack(-1, *[0] * (len(COUNTER_NAMES) - 1)))
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), LAYOUT.size)

    def read(self) -> dict[str, int]:
        return dict(zip(COUNTER_NAMES, LAYOUT.unpack(self.memory[:]), strict=True))

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("q", self.memory, 8 * COUNTER_NAMES.index(name), value)

    def count(self, name: str) -> None:
        place = 8 * COUNTER_NAMES.index(name)
        struct.pack_into("q", self.memory, place, struct.unpack_from("q", self.memory, place)[0] + 1)


def random_of(config: WorkerConfig, index: int) -> Random:
    """Return the random generator of one input, seeded with its target, seed and number alone."""
    return Random(f"{config.target}/{config.seed}/{index}")


def all_targets() -> dict[str, type[Target]]:
    from tests.fuzzing.faulty import FAULTY

    return {**TARGETS, **FAULTY}


def open_target(config: WorkerConfig) -> Target:
    return all_targets()[config.target](Path(config.sandbox))


def main() -> None:
    config = WorkerConfig(**json.loads(sys.argv[1]))
    sandbox = Path(config.sandbox)
    watch, counters = Watch(sandbox, make_bait(sandbox.parent)), Counters(Path(config.counters_file))
    target = open_target(config)
    if config.replay:
        inputs = [Path(config.replay).read_bytes()]
    else:
        target.warm_up()
    _limit_memory(config)
    counters["base_kb"] = base = _peak_kb()
    sampled_at = begun_at = time.monotonic()
    reported: set[tuple[str, str]] = set()
    for index in range(config.start, config.start + len(inputs)) if config.replay else range(config.start, config.stop):
        data = inputs[0] if config.replay else target.make(random_of(config, index))
        counters["index"] = index
        _limit_cpu(config.cpu_s)
        watch.forget_opened()
        watch.is_armed = True
        problem = _feed(target, data, counters)
        watch.is_armed = False
        if opened := watch.take_opened():
            problem = ("outside", f"opened {', '.join(sorted(set(opened)))[:300]}")
        counters["peak_kb"] = peak = _peak_kb()
        if peak - base > config.megabytes * 1024:
            problem = problem if problem and problem[0] == "outside" else ("memory", f"{(peak - base) // 1024} MB")
        if problem:
            counters.count("findings")
            kind, text = problem[0], problem[1].replace(str(sandbox.parent), "…")
            if (kind, text.partition(": ")[0]) not in reported:
                # Many inputs may fail at one place; only the first is reported.
                reported.add((kind, text.partition(": ")[0]))
                _report(index=index, kind=kind, text=text)
            if problem[0] == "memory":
                os._exit(MEMORY_EXIT_CODE)
        now = time.monotonic()
        if now - sampled_at > config.sample_every_s:
            sampled_at = now
            _report(sample=index, kb=_resident_kb())
        if now - begun_at > config.seconds:
            break
    counters["done"] = 1


def _feed(target: Target, data: bytes, counters: Counters) -> tuple[str, str] | None:
    """Feed one input; return None if the program accepts it or refuses it with its own error."""
    try:
        target.feed(data)
    except InspectKDError as error:
        problem = _check_error(error)
        if problem is None:
            counters.count(type(error).__name__)
        return problem
    except MemoryError as error:
        return "memory", _describe(error)
    except BaseException as error:
        # SystemExit and panics of Rust libraries are no subclasses of Exception.
        return "exception", _describe(error)
    counters.count("accepted")
    return None


def _check_error(error: InspectKDError) -> tuple[str, str] | None:
    """Check that an error is readable and does not hide a failed allocation."""
    if type(error) not in (BadInput, UsageError, EnvironmentFault, GateFailed):
        return "exception", _describe(error)
    text, cause = str(error), error.__cause__ or error.__context__
    if len(text) > MAX_MESSAGE_LENGTH:
        return "exception", f"an error of {len(text)} characters: {_describe(error)}"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "exception", f"an error that cannot be printed: {_describe(error)}"
    while cause is not None:
        if isinstance(cause, MemoryError) or "bad_alloc" in str(cause) or "Failed to allocate memory" in str(cause):
            return "memory", f"denied: {_describe(error)}"
        cause = cause.__cause__ or cause.__context__
    return None


def _describe(error: BaseException) -> str:
    """Describe an error and the function of the program that raised it."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "inspect_kd" in Path(frame.filename).parts
    ]
    frames = frames or traceback.extract_tb(error.__traceback__)[-1:]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
    return f"{type(error).__name__} in {place}: {ascii(str(error))[:160]}"


def _limit_memory(config: WorkerConfig) -> None:
    """Bound the address space 512 MB above the limit that `main` checks, and write no core dumps."""
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform.startswith("linux"):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        address_space = pages * resource.getpagesize() + (config.megabytes + 512) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (address_space, resource.RLIM_INFINITY))


def _limit_cpu(seconds: int) -> None:
    """Limit the CPU time of the next input, so that a busy machine causes no false hangs."""
    if resource is not None:
        spent = int(time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _peak_kb() -> int:
    # getrusage includes the time before exec, so a large parent would hide the growth.
    status = Path("/proc/self/status")
    if status.is_file():
        peak = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), "")
        if peak:
            return int(peak.split()[1])
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _resident_kb() -> int:
    """Return the memory in use after garbage collection and the return of free memory to the system."""
    if not sys.platform.startswith("linux"):
        return _peak_kb()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * (mmap.PAGESIZE // 1024)


def _report(**entry: object) -> None:
    print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main()
