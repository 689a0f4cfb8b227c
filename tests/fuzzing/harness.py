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

from tests.fuzzing.worker import (
    COUNTER_NAMES,
    MEMORY_EXIT_CODE,
    Counters,
    WorkerConfig,
    all_targets,
    open_target,
    random_of,
)

ROOT = Path(__file__).parents[2]
WALL_PER_CPU = 4
"""An input counts as hung after its CPU limit times this factor, in wall time."""
SHARED_MEMORY = Path("/dev/shm")
"""Folder for the inputs' files, if the system has it: on a disk, opening files would take most of the time."""
START_S = 240
"""Time limit for the start of a worker."""
LEAK_KB = 64 * 1024
"""Growth of a worker that counts as a leak."""
KIND_BY_SIGNAL = {signal.SIGXCPU: "hang", signal.SIGKILL: "memory"}
"""Kind of a finding by the signal that ended the worker; the system sends SIGKILL when memory runs out."""
WITH_QUARANTINE = {"onnx": "quarantine", "openvino": "quarantine_openvino"}
"""Target without the quarantine → the same target with it."""


@dataclass(kw_only=True)
class Finding:
    """An input that the program neither accepted nor refused with its own error, or a leak over many inputs."""

    target: str
    seed: int
    index: int
    """Number of the input; -1 for a leak."""
    kind: str
    """crash, hang, memory, exit, exception, outside or leak."""
    text: str
    file: str = ""
    """Name of the file with the input, in the folder of the findings."""


@dataclass(kw_only=True)
class Result:
    """Results of the inputs of one target."""

    target: str
    seed: int
    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    broke: int = 0
    """Number of inputs that were neither accepted nor refused; findings list only the first at each place in each worker."""
    contained: Counter[str] = field(default_factory=Counter)
    """Number of inputs that broke the native parser, but were cleanly refused with the quarantine."""
    peak_mb: int = 0
    """The most memory that one input added to a worker."""
    growth_kb: int = 0
    """Largest memory growth of a worker over the last two thirds of its inputs."""
    growth_inputs: int = 0
    """Number of inputs during that growth."""
    seconds: float = 0.0
    """Total wall time."""
    fed: float = 0.0
    """Seconds in which workers processed inputs, without their starts."""
    workers: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"outcomes": dict(self.outcomes), "contained": dict(self.contained)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Result:
        values = {item.name: content[item.name] for item in fields(cls)}
        findings = [Finding(**finding) for finding in content["findings"]]
        return cls(
            **values | {key: Counter(content[key]) for key in ("outcomes", "contained")} | {"findings": findings}
        )

    def __add__(self, other: Result) -> Result:
        """Add the results of one target with different seeds."""
        faster_growing = max(self, other, key=lambda result: result.growth_kb)
        return Result(
            target=self.target,
            seed=other.seed,
            inputs=self.inputs + other.inputs,
            outcomes=self.outcomes + other.outcomes,
            findings=self.findings + other.findings,
            broke=self.broke + other.broke,
            contained=self.contained + other.contained,
            peak_mb=max(self.peak_mb, other.peak_mb),
            growth_kb=faster_growing.growth_kb,
            growth_inputs=faster_growing.growth_inputs,
            seconds=self.seconds + other.seconds,
            fed=self.fed + other.fed,
            workers=self.workers + other.workers,
        )


def fuzz(
    name: str,
    *,
    seconds: float,
    seed: int = 0,
    start: int = 0,
    stop: int = 10**9,
    cpu_s: int | None = None,
    megabytes: int = 1536,
    findings_folder: Path | None = None,
    max_findings: int = 50,
) -> Result:
    """Feed a target the inputs from number `start` to before `stop`, until the limit of time or of findings is reached.

    The findings' inputs are written to `findings_folder`.
    """
    result, begun = Result(target=name, seed=seed), time.monotonic()
    is_native, cpu_s = all_targets()[name].native, cpu_s or all_targets()[name].cpu_s
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None) as folder:
        index = start
        while index < stop and result.fed < seconds and len(result.findings) < max_findings:
            worker = _Worker(Path(folder), result.workers)
            config = WorkerConfig(
                target=name,
                sandbox=str(worker.sandbox),
                counters_file=str(worker.counters_file),
                seed=seed,
                start=index,
                stop=stop,
                seconds=seconds - result.fed,
                cpu_s=cpu_s,
                megabytes=megabytes,
                sample_every_s=min(5.0, max(0.25, seconds / 40)),
            )
            findings = worker.run(config)
            result.workers += 1
            result.fed += worker.fed_s
            counts = worker.counts
            _add_counts(result, worker, index)
            for finding in findings:
                finding.target, finding.seed = name, seed
                data = _remake_input(config, finding.index, Path(folder))
                if (
                    is_native
                    and finding.kind in ("crash", "hang", "memory")
                    and _is_contained(name, data, Path(folder))
                ):
                    result.contained[finding.kind] += 1
                    continue
                if findings_folder is not None:
                    findings_folder.mkdir(parents=True, exist_ok=True)
                    file = findings_folder / f"{name}-{seed}-{finding.index}.bin"
                    file.write_bytes(data)
                    finding.file = file.name
                result.findings.append(finding)
            index = counts["index"] + 1
            if counts["done"]:
                break
    result.seconds = time.monotonic() - begun
    if result.growth_kb > LEAK_KB:
        text = f"{result.growth_kb // 1024} MB over {result.growth_inputs} inputs"
        result.findings.append(Finding(target=name, seed=seed, index=-1, kind="leak", text=text))
    return result


def _add_counts(result: Result, worker: _Worker, start: int) -> None:
    counts = worker.counts
    outcomes = COUNTER_NAMES[COUNTER_NAMES.index("accepted") : COUNTER_NAMES.index("findings")]
    result.outcomes.update({name: counts[name] for name in outcomes if counts[name]})
    result.inputs += counts["index"] + 1 - start
    result.broke += counts["index"] + 1 - start - sum(counts[name] for name in outcomes)
    result.peak_mb = max(result.peak_mb, (counts["peak_kb"] - counts["base_kb"]) // 1024)
    samples = worker.samples[len(worker.samples) // 3 :]
    if len(samples) >= 6:
        third = len(samples) // 3
        first, last = (statistics.median(kb for _, kb in group) for group in (samples[:third], samples[-third:]))
        if last - first > result.growth_kb or not result.growth_inputs:
            result.growth_kb, result.growth_inputs = int(last - first), samples[-1][0] - samples[0][0]


class _Worker:
    """One worker process."""

    def __init__(self, folder: Path, number: int) -> None:
        # Each worker has its own parent folder, because the bait lies beside the sandbox.
        self.home = folder / str(number)
        self.sandbox = self.home / "sandbox"
        self.sandbox.mkdir(parents=True)
        self.counters_file, self.log = self.home / "counters", self.home / "log"
        self.samples: list[tuple[int, int]] = []
        self.fed_s = 0.0

    def run(self, config: WorkerConfig) -> list[Finding]:
        counters = Counters(self.counters_file)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
            "HOME": str(self.home),
            "TMPDIR": str(self.sandbox),
        }
        command = [sys.executable, "-m", "tests.fuzzing.worker", json.dumps(asdict(config))]
        with self.log.open("wb") as log, (self.home / "stderr").open("wb") as errors:
            process = subprocess.Popen(command, stdout=log, stderr=errors, env=environment, cwd=ROOT)
            try:
                hung = self._wait(process, counters, config)
            finally:
                process.kill()
                code = process.wait()
        self.counts = counters.read()
        findings = self._read_log()
        if self.counts["done"]:
            return findings
        if self.counts["index"] == -1:
            raise RuntimeError(f"a worker for {config.target} did not start: {self._stderr()}")
        if code == MEMORY_EXIT_CODE:
            return findings
        kind = "hang" if hung else KIND_BY_SIGNAL.get(signal.Signals(-code), "crash") if code < 0 else "exit"
        text = f"no answer in {WALL_PER_CPU * config.cpu_s} s" if hung else f"exit code {code} {self._stderr()[-200:]}"
        return [*findings, Finding(target="", seed=0, index=self.counts["index"], kind=kind, text=text.strip())]

    def _wait(self, process: subprocess.Popen[bytes], counters: Counters, config: WorkerConfig) -> bool:
        """Wait until the worker ends; return True if an input exceeded its time."""
        index, index_since, begun = -1, time.monotonic(), 0.0
        while process.poll() is None:
            time.sleep(0.05)
            now, current = time.monotonic(), counters.read()["index"]
            if current != index:
                index, index_since = current, now
            if current != -1 and not begun:
                begun = now
            self.fed_s = now - begun if begun else 0.0
            if now - index_since > (START_S if current == -1 else WALL_PER_CPU * config.cpu_s):
                return True
        return False

    def _read_log(self) -> list[Finding]:
        """Read the worker's memory samples and findings."""
        findings = []
        for line in self.log.read_bytes().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # printed by a library
            if "sample" in entry:
                self.samples.append((entry["sample"], entry["kb"]))
            elif "index" in entry:
                findings.append(Finding(target="", seed=0, **entry))
        return findings

    def _stderr(self) -> str:
        return (self.home / "stderr").read_text(errors="replace")[-600:]


def _remake_input(config: WorkerConfig, index: int, folder: Path) -> bytes:
    """Make the same input again, in a sandbox with the same layout, since some inputs contain paths."""
    number = len(list(folder.glob("again*")))
    sandbox = folder / f"again{number}" / "sandbox"
    sandbox.mkdir(parents=True)
    working_directory, environment = Path.cwd(), dict(os.environ)
    try:
        return open_target(WorkerConfig(**asdict(config) | {"sandbox": str(sandbox)})).make(random_of(config, index))
    finally:
        os.chdir(working_directory)
        os.environ.clear()
        os.environ.update(environment)


def _is_contained(name: str, data: bytes, folder: Path) -> bool:
    """True if the quarantine cleanly refuses an input that breaks the native parser."""
    # Numbers from 100,000 on are those of these workers; `fuzz` counts its own from 0.
    worker = _Worker(folder, 100_000 + len(list(folder.glob("1*"))))
    file = worker.home / "input"
    file.write_bytes(data)
    config = WorkerConfig(
        target=WITH_QUARANTINE[name],
        sandbox=str(worker.sandbox),
        counters_file=str(worker.counters_file),
        stop=1,
        cpu_s=30,
        megabytes=1024,
        replay=str(file),
    )
    return not worker.run(config) and not worker.counts["accepted"]
