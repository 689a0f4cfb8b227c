"""Run fuzzing workers one after another until the time or the number of inputs is reached, and collect their results."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tests.fuzzing.worker import NUMBERS, TOO_MUCH, Board, Order, chance, every_target, open_target

ROOT = Path(__file__).parents[2]
PATIENCE = 4
"""Wall seconds for each CPU second of an input's limit, after which it counts as hung."""
MEMORY = Path("/dev/shm")
"""Files in memory, if available: on a disk opening them would take most of the time."""
START_S = 240
"""Time limit for a worker's imports."""
LEAK_KB = 64 * 1024
DEATHS = {signal.SIGXCPU: "hang", signal.SIGKILL: "memory"}
"""Kinds of findings by the signal that ended a worker; the system kills processes when memory runs out."""
CONTAINED = {"onnx": "quarantine", "openvino": "quarantine_openvino"}
"""The target with the quarantine, for each target without it."""


@dataclass(kw_only=True)
class Finding:
    target: str
    seed: int
    index: int
    kind: str
    text: str
    file: str = ""


@dataclass(kw_only=True)
class Result:
    """Results of a target's inputs."""

    target: str
    seed: int
    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    broke: int = 0
    """Inputs that were neither accepted nor refused; of several that fail at one place in one worker only the first is analysed."""
    contained: Counter[str] = field(default_factory=Counter)
    """Inputs that broke the native parser, but were cleanly refused with the quarantine."""
    peak_mb: int = 0
    """The most memory that one input added to a worker."""
    growth_kb: int = 0
    """Growth of the longest-lived worker over the last two thirds of its inputs; the largest."""
    growth_inputs: int = 0
    seconds: float = 0.0
    """Total wall time."""
    fed: float = 0.0
    """Time between the first and the last inputs of workers."""
    workers: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"outcomes": dict(self.outcomes), "contained": dict(self.contained)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Result:
        own = {each.name: content[each.name] for each in fields(cls)}
        findings = [Finding(**finding) for finding in content["findings"]]
        return cls(**own | {key: Counter(content[key]) for key in ("outcomes", "contained")} | {"findings": findings})

    def __add__(self, other: Result) -> Result:
        """Add the results of one target with different seeds."""
        kept = max(self, other, key=lambda result: result.growth_kb)
        return Result(
            target=self.target,
            seed=other.seed,
            inputs=self.inputs + other.inputs,
            outcomes=self.outcomes + other.outcomes,
            findings=self.findings + other.findings,
            broke=self.broke + other.broke,
            contained=self.contained + other.contained,
            peak_mb=max(self.peak_mb, other.peak_mb),
            growth_kb=kept.growth_kb,
            growth_inputs=kept.growth_inputs,
            seconds=self.seconds + other.seconds,
            fed=self.fed + other.fed,
            workers=self.workers + other.workers,
        )


def fuzz(
    name: str,
    *,
    seconds: float,
    seed: int = 0,
    count: int = 10**9,
    start: int = 0,
    cpu_s: int | None = None,
    megabytes: int = 1536,
    keep: Path | None = None,
    most: int = 50,
) -> Result:
    """Feed a target until the time, the number of inputs or that of findings is reached; write the findings into `keep`."""
    result, begun = Result(target=name, seed=seed), time.monotonic()
    contained, cpu_s = every_target()[name].native, cpu_s or every_target()[name].cpu_s
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        index = start
        while index < count and result.fed < seconds and len(result.findings) < most:
            work = _Work(Path(folder), result.workers)
            order = Order(
                target=name, room=str(work.room), board=str(work.board), seed=seed, start=index, stop=count,
                seconds=seconds - result.fed, cpu_s=cpu_s, megabytes=megabytes, every_s=min(5.0, max(0.25, seconds / 40)),
            )  # fmt: skip
            found = work.run(order)
            result.workers += 1
            result.fed += work.fed
            done = work.numbers
            last = done["index"]
            _absorb(result, work, done, index)
            for finding in found:
                finding.target, finding.seed = name, seed
                data = _again(order, finding.index, Path(folder))
                if (
                    contained
                    and finding.kind in ("crash", "hang", "memory")
                    and _is_contained(name, data, Path(folder))
                ):
                    result.contained[finding.kind] += 1
                    continue
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    file = keep / f"{name}-{seed}-{finding.index}.bin"
                    file.write_bytes(data)
                    finding.file = file.name
                result.findings.append(finding)
            index = last + 1
            if done["done"]:
                break
    result.seconds = time.monotonic() - begun
    if result.growth_kb > LEAK_KB:
        text = f"{result.growth_kb // 1024} MB over {result.growth_inputs} inputs"
        result.findings.append(Finding(target=name, seed=seed, index=-1, kind="leak", text=text))
    return result


def _absorb(result: Result, work: _Work, done: dict[str, int], start: int) -> None:
    refusals = NUMBERS[NUMBERS.index("accepted") : NUMBERS.index("findings")]
    result.outcomes.update({name: done[name] for name in refusals if done[name]})
    result.inputs += done["index"] + 1 - start
    result.broke += done["index"] + 1 - start - sum(done[name] for name in refusals)
    result.peak_mb = max(result.peak_mb, (done["peak_kb"] - done["base_kb"]) // 1024)
    samples = work.samples[len(work.samples) // 3 :]
    if len(samples) >= 6:
        third = len(samples) // 3
        first, last = (statistics.median(kb for _, kb in part) for part in (samples[:third], samples[-third:]))
        if last - first > result.growth_kb or not result.growth_inputs:
            result.growth_kb, result.growth_inputs = int(last - first), samples[-1][0] - samples[0][0]


class _Work:
    """One worker process."""

    def __init__(self, folder: Path, number: int) -> None:
        # Each has its own parent folder, because the bait lies beside the room.
        self.home = folder / str(number)
        self.room = self.home / "room"
        self.room.mkdir(parents=True)
        self.board, self.log = self.home / "board", self.home / "log"
        self.samples: list[tuple[int, int]] = []
        self.fed = 0.0

    def run(self, order: Order) -> list[Finding]:
        board = Board(self.board)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
            "HOME": str(self.home),
            "TMPDIR": str(self.room),
        }
        words = [sys.executable, "-m", "tests.fuzzing.worker", json.dumps(asdict(order))]
        with self.log.open("wb") as log, (self.home / "stderr").open("wb") as errors:
            process = subprocess.Popen(words, stdout=log, stderr=errors, env=environment, cwd=ROOT)
            try:
                hung = self._wait(process, board, order)
            finally:
                process.kill()
                code = process.wait()
        self.numbers = board.read()
        found = self._findings()
        if self.numbers["done"]:
            return found
        if self.numbers["index"] == -1:
            raise RuntimeError(f"a worker for {order.target} did not start: {self._stderr()}")
        if code == TOO_MUCH:
            return found
        kind = "hang" if hung else DEATHS.get(signal.Signals(-code), "crash") if code < 0 else "exit"
        how = f"no answer in {PATIENCE * order.cpu_s} s" if hung else f"exit code {code} {self._stderr()[-200:]}"
        return [*found, Finding(target="", seed=0, index=self.numbers["index"], kind=kind, text=how.strip())]

    def _wait(self, process: subprocess.Popen[bytes], board: Board, order: Order) -> bool:
        """Wait for the end; return True if an input exceeded its time."""
        index, since, begun = -1, time.monotonic(), 0.0
        while process.poll() is None:
            time.sleep(0.05)
            now, at = time.monotonic(), board.read()["index"]
            if at != index:
                index, since = at, now
            if at != -1 and not begun:
                begun = now
            self.fed = now - begun if begun else 0.0
            if now - since > (START_S if at == -1 else PATIENCE * order.cpu_s):
                return True
        return False

    def _findings(self) -> list[Finding]:
        found = []
        for line in self.log.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # printed by a library
            if "sample" in entry:
                self.samples.append((entry["sample"], entry["kb"]))
            elif "index" in entry:
                found.append(Finding(target="", seed=0, **entry))
        return found

    def _stderr(self) -> str:
        return (self.home / "stderr").read_text(errors="replace")[-600:]


def _again(order: Order, index: int, folder: Path) -> bytes:
    """Make the same input again. Its room must have the same layout, since some inputs contain paths."""
    number = len(list(folder.glob("again*")))
    room = folder / f"again{number}" / "room"
    room.mkdir(parents=True)
    here, environment = Path.cwd(), dict(os.environ)
    try:
        return open_target(Order(**asdict(order) | {"room": str(room)})).make(chance(order, index))
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(environment)


def _is_contained(name: str, data: bytes, folder: Path) -> bool:
    """True if the quarantine cleanly refuses an input that breaks the native parser."""
    work = _Work(folder, 100_000 + len(list(folder.glob("1*"))))
    file = work.home / "input"
    file.write_bytes(data)
    order = Order(
        target=CONTAINED[name], room=str(work.room), board=str(work.board), stop=1, cpu_s=30, megabytes=1024, replay=str(file)
    )  # fmt: skip
    return not work.run(order) and not work.numbers["accepted"]
