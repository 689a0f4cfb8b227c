"""The comparison itself: every entry on every setting in a process of its own, then all files against one clock."""

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
from inspect_kd.train.run import resolved, write_json
from inspect_kd.types import NoProgress, Progress

RESULT, LOG, MODEL, WORK = "result.json", "log.txt", "model.onnx", "of.txt"
Results = dict[str, dict[str, dict[str, Any]]]
"""By setting, then by entry."""
WITHOUT_OURS = 10.0
"""Minutes of a peer's training where none of ours has shown how long one takes."""


def run_benchmark(
    settings: Mapping[str, DataSet],
    entries: Mapping[str, Entry],
    out: Path,
    minutes: float | None,
    progress: Progress,
    *,
    standing: Results | None = None,
    try_again: bool = True,
) -> Results:
    """What was finished with the same data, entry and minutes is taken as it is; what failed is tried again, if wanted.

    Without `minutes` a peer may train as long as the slowest of ours took, which therefore come first. What is `standing` was
    measured elsewhere and is not done here.
    """
    progress.phase("compare", len(settings) * len(entries))
    results: Results = {}
    for setting, data in settings.items():
        told = results[setting] = dict((standing or {}).get(setting, {}))
        for key, entry in entries.items():
            if key not in told:
                granted = as_long_as_ours(told, entries) if minutes is None else minutes
                folder, work = out / setting / key, identity(entry, data, granted)
                if not _finished(folder, work, or_failed=not try_again):
                    progress.note(f"{setting}: {entry.name}")
                    _begin(folder, work)
                    _in_own_process(entry, data, folder, granted)
                told[key] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
            progress.advance()
    return results


def as_long_as_ours(told: Mapping[str, Mapping[str, Any]], entries: Mapping[str, Entry]) -> float:
    """In whole minutes, rounded up."""
    took = [
        result["train_seconds"] for key, result in told.items() if entries[key].maker == "ours" and "metrics" in result
    ]
    return math.ceil(max(took) / 60) if took else WITHOUT_OURS


def identity(entry: Entry, data: DataSet, minutes: float) -> str:
    """What a result is a result of."""
    recipe = resolved(load_recipe(entry.model)).digest() if entry.maker == "ours" else ""
    granted = float(minutes) if entry.maker == "peers" else None
    return hashlib.sha256(json.dumps([asdict(entry), recipe, data.digest, granted, SIZE]).encode()).hexdigest()


def _finished(folder: Path, work: str, *, or_failed: bool = False) -> bool:
    if not _is_of(folder, work) or not (folder / RESULT).is_file():
        return False
    return or_failed or "failure" not in json.loads((folder / RESULT).read_text(encoding="utf-8"))


def _begin(folder: Path, work: str) -> None:
    """A folder of the same work is gone on with, one of other work is emptied."""
    if folder.is_dir() and not _is_of(folder, work):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)
    atomic_write.write_text(folder / WORK, work)


def _is_of(folder: Path, work: str) -> bool:
    return (folder / WORK).is_file() and (folder / WORK).read_text(encoding="utf-8") == work


def cost(entries: Mapping[str, Entry], out: Path, setting: str, progress: Progress) -> dict[str, dict[str, float]]:
    """Times, memory and size of each entry's file, all in one run; of a file that does not run it is said."""
    from inspect_kd.bench.cost import clock, machine_peak, peak_memory

    files = {key: out / setting / key / MODEL for key in entries}
    files = {key: file for key, file in files.items() if file.is_file()}
    progress.phase("time", 2 * len(files) + 1)
    peak = machine_peak()
    progress.advance()
    told, failures = clock(files)
    for key, why in failures.items():
        progress.note(f"{entries[key].name}: its file does not run, so it is not timed ({why})")
    progress.advance(len(files))
    for key, times in told.items():
        times |= {"file_mb": files[key].stat().st_size / 1e6, "peak_gflops": peak}
        memory = peak_memory(files[key])
        if memory is not None:
            times["memory_mb"] = memory
        progress.advance()
    return told


def _in_own_process(entry: Entry, data: DataSet, folder: Path, minutes: float) -> None:
    process = spawn_process(_work, entry, data, folder, minutes)
    process.join()
    if not (folder / RESULT).is_file():
        _write(folder, {"failure": f"its process ended with exit status {process.exitcode}; see {LOG}"})


def _end_with_parent() -> None:
    """A comparison that is killed must not leave a training behind that eats a core."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(entry: Entry, data: DataSet, folder: Path, minutes: float) -> None:
    """In the child: nothing that a peer prints reaches the user's screen, all of it reaches the log."""
    with (folder / LOG).open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
        warnings.filterwarnings("ignore")
        logging.getLogger("lightning").setLevel(logging.WARNING)
        Thread(target=_end_with_parent, daemon=True).start()
        began = time.monotonic()
        try:
            told = registry.load("bench", entry.maker).run_entry(entry, data, folder, minutes, NoProgress())
        except Exception as error:
            traceback.print_exc()
            told = {"failure": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        _write(folder, {"train_seconds": round(time.monotonic() - began, 1)} | told)


def _write(folder: Path, told: dict[str, Any]) -> None:
    write_json(folder / RESULT, told)
