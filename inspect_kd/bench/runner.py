"""Run a comparison: each entry on each setting in a separate process, then time all exported files together."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
import os
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import Any

from inspect_kd import atomic_write, registry
from inspect_kd.bench.entries import SIZE, Entry
from inspect_kd.child_process import spawn_process
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet
from inspect_kd.training.run import resolve_recipe, write_json
from inspect_kd.types import NoProgress, Progress

RESULT_FILE, LOG_FILE, MODEL_FILE, DIGEST_FILE = "result.json", "log.txt", "model.onnx", "of.txt"
Results = dict[str, dict[str, dict[str, Any]]]
"""Setting -> entry -> result. A setting is a data set to train on: all categories together, or one alone."""
DEFAULT_MINUTES = 10.0
"""Time limit of a peer if none of our students was trained."""


def run_benchmark(
    settings: Mapping[str, DataSet],
    entries: Mapping[str, Entry],
    out: Path,
    minutes: float | None,
    progress: Progress,
    *,
    published: Results | None = None,
    retry_failed: bool = True,
) -> Results:
    """Run every entry on every setting, given as data sets by name; reuse results of the same data, entry and minutes.

    Without `minutes` a peer may train as long as the slowest of our students took, so students come first in `entries`. Entries with
    `published` results are not measured again.
    """
    progress.phase("compare", len(settings) * len(entries))
    results: Results = {}
    for setting, data in settings.items():
        by_entry = results[setting] = dict((published or {}).get(setting, {}))
        for key, entry in entries.items():
            if key not in by_entry:
                limit = slowest_student_minutes(by_entry, entries) if minutes is None else minutes
                folder, digest = out / setting / key, entry_digest(entry, data, limit)
                if not _is_finished(folder, digest, accept_failed=not retry_failed):
                    progress.note(f"{setting}: {entry.name}")
                    _prepare_folder(folder, digest)
                    _run_in_process(entry, data, folder, limit)
                by_entry[key] = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
            progress.advance()
    return results


def slowest_student_minutes(by_entry: Mapping[str, Mapping[str, Any]], entries: Mapping[str, Entry]) -> float:
    """Return the minutes of the slowest training of our students, rounded up."""
    seconds = [
        result["train_seconds"]
        for key, result in by_entry.items()
        if entries[key].maker == "ours" and "metrics" in result
    ]
    return math.ceil(max(seconds) / 60) if seconds else DEFAULT_MINUTES


def entry_digest(entry: Entry, data: DataSet, minutes: float) -> str:
    """Return a digest of everything that an entry's result depends on."""
    recipe = resolve_recipe(load_recipe(entry.model)).digest() if entry.maker == "ours" else ""
    limit = float(minutes) if entry.maker == "peers" else None
    return hashlib.sha256(json.dumps([asdict(entry), recipe, data.digest, limit, SIZE]).encode()).hexdigest()


def _is_finished(folder: Path, digest: str, *, accept_failed: bool = False) -> bool:
    if not _has_digest(folder, digest) or not (folder / RESULT_FILE).is_file():
        return False
    return accept_failed or "failure" not in json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))


def _prepare_folder(folder: Path, digest: str) -> None:
    """Keep a folder with the same digest, to resume it; otherwise clear it."""
    if folder.is_dir() and not _has_digest(folder, digest):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT_FILE).unlink(missing_ok=True)
    atomic_write.write_text(folder / DIGEST_FILE, digest)


def _has_digest(folder: Path, digest: str) -> bool:
    return (folder / DIGEST_FILE).is_file() and (folder / DIGEST_FILE).read_text(encoding="utf-8") == digest


def measure_costs(
    entries: Mapping[str, Entry], out: Path, setting: str, progress: Progress
) -> dict[str, dict[str, float]]:
    """Measure time, memory and size of each entry's exported file; report files that do not run."""
    from inspect_kd.bench.cost import measure_memory, measure_peak_gflops, time_files

    files = {key: out / setting / key / MODEL_FILE for key in entries}
    files = {key: file for key, file in files.items() if file.is_file()}
    progress.phase("time", 2 * len(files) + 1)
    peak = measure_peak_gflops()
    progress.advance()
    costs, failures = time_files(files)
    for key, reason in failures.items():
        progress.note(f"{entries[key].name}: not timed, its file does not run ({reason})")
    progress.advance(len(files))
    for key, times in costs.items():
        times |= {"file_mb": files[key].stat().st_size / 1e6, "peak_gflops": peak}
        memory = measure_memory(files[key])
        if memory is not None:
            times["memory_mb"] = memory
        progress.advance()
    return costs


def _run_in_process(entry: Entry, data: DataSet, folder: Path, minutes: float) -> None:
    process = spawn_process(_run_entry, entry, data, folder, minutes)
    process.join()
    if not (folder / RESULT_FILE).is_file():
        _write_result(folder, {"failure": f"its process ended with exit status {process.exitcode}; see {LOG_FILE}"})


def _end_with_parent() -> None:
    """End this child when the comparison is killed, so that no training keeps running."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_entry(entry: Entry, data: DataSet, folder: Path, minutes: float) -> None:
    """Train and measure in the child process; what a peer prints goes into the log."""
    with (folder / LOG_FILE).open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
        warnings.filterwarnings("ignore")
        logging.getLogger("lightning").setLevel(logging.WARNING)
        Thread(target=_end_with_parent, daemon=True).start()
        began = time.monotonic()
        try:
            result = registry.load("bench", entry.maker).run_entry(entry, data, folder, minutes, NoProgress())
        except Exception as error:
            traceback.print_exc()
            result = {"failure": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        _write_result(folder, {"train_seconds": round(time.monotonic() - began, 1)} | result)


def _write_result(folder: Path, result: dict[str, Any]) -> None:
    write_json(folder / RESULT_FILE, result)
