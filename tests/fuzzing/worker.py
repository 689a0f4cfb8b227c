"""The worker process: feeds inputs to a target until the time or their number is reached, and reports the results.

Counters that must survive a crash are in shared memory. Run as `python -m tests.fuzzing.worker`; its argument is an Order as
JSON.
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
from tests.fuzzing.watch import Watch, lay_bait

try:
    import resource
except ImportError:  # Windows: only the harness's timeout applies
    resource = None  # type: ignore[assignment]

NUMBERS = (
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
BOARD = struct.Struct(f"{len(NUMBERS)}q")
TOO_MUCH = 17
"""Exit code of a worker that exceeded its memory; another one continues."""
MAX_LINE_BYTES = 4000
"""Most characters of an error message."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker does."""

    target: str
    room: str
    board: str
    seed: int = 0
    start: int = 0
    stop: int = 10**9
    seconds: float = 1e9
    """Counted from the first input."""
    cpu_s: int = 5
    megabytes: int = 1536
    """Memory limit above the process's size at the start."""
    every_s: float = 1.0
    """Interval of memory samples."""
    replay: str = ""
    """A file with the only input to feed."""


class Board:
    """Counters in shared memory, which survive the process."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(BOARD.pack(-1, *[0] * (len(NUMBERS) - 1)))
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), BOARD.size)

    def read(self) -> dict[str, int]:
        return dict(zip(NUMBERS, BOARD.unpack(self.memory[:]), strict=True))

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("q", self.memory, 8 * NUMBERS.index(name), value)

    def count(self, name: str) -> None:
        place = 8 * NUMBERS.index(name)
        struct.pack_into("q", self.memory, place, struct.unpack_from("q", self.memory, place)[0] + 1)


def chance(order: Order, index: int) -> Random:
    return Random(f"{order.target}/{order.seed}/{index}")


def every_target() -> dict[str, type[Target]]:
    from tests.fuzzing.faulty import FAULTY

    return {**TARGETS, **FAULTY}


def open_target(order: Order) -> Target:
    return every_target()[order.target](Path(order.room))


def main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    room = Path(order.room)
    watch, board = Watch(room, lay_bait(room.parent)), Board(Path(order.board))
    target = open_target(order)
    if order.replay:
        inputs = [Path(order.replay).read_bytes()]
    else:
        target.warm_up()
    _limit(order)
    board["base_kb"] = base = _resident_kb()
    looked = begun = time.monotonic()
    reported: set[tuple[str, str]] = set()
    for index in range(order.start, order.start + len(inputs)) if order.replay else range(order.start, order.stop):
        data = inputs[0] if order.replay else target.make(chance(order, index))
        board["index"] = index
        _allow_cpu(order.cpu_s)
        watch.take()
        watch.armed = True
        problem = _feed(target, data, board)
        watch.armed = False
        if opened := watch.take():
            problem = ("outside", f"opened {', '.join(sorted(set(opened)))[:300]}")
        board["peak_kb"] = peak = _peak_kb()
        if peak - base > order.megabytes * 1024:
            problem = problem if problem and problem[0] == "outside" else ("memory", f"{(peak - base) // 1024} MB")
        if problem:
            board.count("findings")
            kind, text = problem[0], problem[1].replace(str(room.parent), "…")
            if (kind, text.partition(": ")[0]) not in reported:
                # Only the first finding of a place is reported: many inputs may fail there.
                reported.add((kind, text.partition(": ")[0]))
                _report(index=index, kind=kind, text=text)
            if problem[0] == "memory":
                os._exit(TOO_MUCH)
        now = time.monotonic()
        if now - looked > order.every_s:
            looked = now
            _report(sample=index, kb=_settled_kb())
        if now - begun > order.seconds:
            break
    board["done"] = 1


def _feed(target: Target, data: bytes, board: Board) -> tuple[str, str] | None:
    """Feed one input; return None if the program accepts it or refuses it with its own error."""
    try:
        target.feed(data)
    except InspectKDError as error:
        problem = _clear(error)
        if problem is None:
            board.count(type(error).__name__)
        return problem
    except MemoryError as error:
        return "memory", _where(error)
    except BaseException as error:
        # Also a SystemExit, or a panic of a library in Rust, which are not Exceptions.
        return "exception", _where(error)
    board.count("accepted")
    return None


def _clear(error: InspectKDError) -> tuple[str, str] | None:
    """Check that an error is readable and does not hide a failed allocation."""
    if type(error) not in (BadInput, UsageError, EnvironmentFault, GateFailed):
        return "exception", _where(error)
    text, link = str(error), error.__cause__ or error.__context__
    if len(text) > MAX_LINE_BYTES:
        return "exception", f"an error of {len(text)} characters: {_where(error)}"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "exception", f"an error that cannot be printed: {_where(error)}"
    while link is not None:
        if isinstance(link, MemoryError) or "bad_alloc" in str(link) or "Failed to allocate memory" in str(link):
            return "memory", f"denied: {_where(error)}"
        link = link.__cause__ or link.__context__
    return None


def _where(error: BaseException) -> str:
    """Describe an error and the function of the program that raised it."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "inspect_kd" in Path(frame.filename).parts
    ]
    frames = frames or traceback.extract_tb(error.__traceback__)[-1:]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
    return f"{type(error).__name__} in {place}: {ascii(str(error))[:160]}"


def _limit(order: Order) -> None:
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform.startswith("linux"):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        room = pages * resource.getpagesize() + (order.megabytes + 512) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))


def _allow_cpu(seconds: int) -> None:
    """Limit the CPU time of the next input, so that a busy machine causes no false hangs."""
    if resource is not None:
        spent = int(time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _resident_kb() -> int:
    return _peak_kb()


def _peak_kb() -> int:
    # getrusage includes the time before exec, so a large parent would hide the growth.
    status = Path("/proc/self/status")
    if status.is_file():
        peak = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), "")
        if peak:
            return int(peak.split()[1])
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _settled_kb() -> int:
    """Return the memory in use after a garbage collection and returning free memory to the system."""
    if not sys.platform.startswith("linux"):
        return _peak_kb()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * (mmap.PAGESIZE // 1024)


def _report(**entry: object) -> None:
    print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main()
