"""Starts workers, watches their clock and their end, and counts: one worker after another until time or numbers are up."""

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
"""Wall seconds for each second of the processor that an input may have: after them it counts as hung."""
MEMORY = Path("/dev/shm")
"""Where files cost nothing, if the machine has it: on a disk opening them would take most of the time."""
START_S = 240
"""For a worker to import what it needs."""
LEAK_KB = 64 * 1024
DEATHS = {signal.SIGXCPU: "hang", signal.SIGKILL: "memory"}
"""A worker that somebody else kills is one whom the machine had no memory for."""
CONTAINED = {"onnx": "quarantine", "openvino": "quarantine_openvino"}
"""Which door holds what a native parser breaks on."""


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
    """What became of a target's inputs."""

    target: str
    seed: int
    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    broke: int = 0
    """Inputs that were neither accepted nor refused; of those that broke in one place of one worker the first is looked into."""
    contained: Counter[str] = field(default_factory=Counter)
    """Broke the native parser by itself, and ended as a clear refusal where the quarantine stood before it."""
    peak_mb: int = 0
    """The largest that one input has added to a worker."""
    growth_kb: int = 0
    """Kept by the longest-lived worker over the last two thirds of its life; the largest."""
    growth_inputs: int = 0
    seconds: float = 0.0
    """Wall, all in all."""
    fed: float = 0.0
    """Of them between a worker's first input and its last."""
    workers: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"outcomes": dict(self.outcomes), "contained": dict(self.contained)}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Result:
        own = {each.name: told[each.name] for each in fields(cls)}
        findings = [Finding(**finding) for finding in told["findings"]]
        return cls(**own | {key: Counter(told[key]) for key in ("outcomes", "contained")} | {"findings": findings})

    def __add__(self, other: Result) -> Result:
        """Of one target, fed twice with different seeds."""
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
    """Feed a target for so long, or so many inputs, or until so many findings; those are written into `keep`."""
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
                if contained and finding.kind in ("crash", "hang", "memory") and _held(name, data, Path(folder)):
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
    """One worker's life."""

    def __init__(self, folder: Path, number: int) -> None:
        # A parent of their own: the bait lies beside the room.
        self.home = folder / str(number)
        self.room = self.home / "room"
        self.room.mkdir(parents=True)
        self.board, self.told = self.home / "board", self.home / "told"
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
        with self.told.open("wb") as told, (self.home / "stderr").open("wb") as errors:
            process = subprocess.Popen(words, stdout=told, stderr=errors, env=environment, cwd=ROOT)
            try:
                hung = self._wait(process, board, order)
            finally:
                process.kill()
                code = process.wait()
        self.numbers = board.read()
        found = self._told()
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
        """True where an input's time ran out."""
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

    def _told(self) -> list[Finding]:
        found = []
        for line in self.told.read_bytes().splitlines():
            try:
                what = json.loads(line)
            except ValueError:
                continue  # a library's own word
            if "sample" in what:
                self.samples.append((what["sample"], what["kb"]))
            elif "index" in what:
                found.append(Finding(target="", seed=0, **what))
        return found

    def _stderr(self) -> str:
        return (self.home / "stderr").read_text(errors="replace")[-600:]


def _again(order: Order, index: int, folder: Path) -> bytes:
    """The very input, made once more. Its room must look the same: paths stand in some inputs."""
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


def _held(name: str, data: bytes, folder: Path) -> bool:
    """Does the product itself end well where a native parser does not? Only a clear refusal counts."""
    work = _Work(folder, 100_000 + len(list(folder.glob("1*"))))
    file = work.home / "input"
    file.write_bytes(data)
    order = Order(
        target=CONTAINED[name], room=str(work.room), board=str(work.board), stop=1, cpu_s=30, megabytes=1024, replay=str(file)
    )  # fmt: skip
    return not work.run(order) and not work.numbers["accepted"]
