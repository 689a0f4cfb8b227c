"""The comparison itself: every entry on every setting in a process of its own, then all files against one clock."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspect_kd import registry
from inspect_kd.bench.entries import Entry
from inspect_kd.datasets import DataSet
from inspect_kd.train.run import write_json
from inspect_kd.types import Nobody, Watch

RESULT, LOG, MODEL = "result.json", "log.txt", "model.onnx"
Results = dict[str, dict[str, dict[str, Any]]]
"""By setting, then by entry."""


def contest(
    settings: Mapping[str, DataSet], entries: Mapping[str, Entry], out: Path, minutes: float, watch: Watch
) -> Results:
    """Whatever has a result already is taken as it is; a failure is a result too."""
    watch.phase("compare", len(settings) * len(entries))
    results: Results = {}
    for setting, data in settings.items():
        for key, entry in entries.items():
            folder = out / setting / key
            if not (folder / RESULT).is_file():
                watch.say(f"{setting}: {entry.name}")
                _in_own_process(entry, data, folder, minutes)
            results.setdefault(setting, {})[key] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
            watch.advance()
    return results


def cost(entries: Mapping[str, Entry], out: Path, setting: str, watch: Watch) -> dict[str, dict[str, float]]:
    """Times, memory and size of each entry's file, all in one run."""
    from inspect_kd.bench.cost import clock, machine_peak, peak_memory

    files = {key: out / setting / key / MODEL for key in entries}
    files = {key: file for key, file in files.items() if file.is_file()}
    watch.phase("time", 2 * len(files) + 1)
    peak = machine_peak()
    watch.advance()
    # What takes a second an image would otherwise take the whole hour.
    told = clock(files, rounds=6, runs=5)
    watch.advance(len(files))
    for key, file in files.items():
        told[key] |= {"file_mb": file.stat().st_size / 1e6, "memory_mb": peak_memory(file), "peak_gflops": peak}
        watch.advance()
    return told


def _in_own_process(entry: Entry, data: DataSet, folder: Path, minutes: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Spawned, not forked: torch's threads do not survive a fork.
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(entry, data, folder, minutes))
    process.start()
    process.join()
    if not (folder / RESULT).is_file():
        _write(folder, {"failure": f"its process ended with exit status {process.exitcode}; see {LOG}"})


def _work(entry: Entry, data: DataSet, folder: Path, minutes: float) -> None:
    """In the child: nothing that a peer prints reaches the user's screen, all of it reaches the log."""
    with (folder / LOG).open("w", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
        warnings.filterwarnings("ignore")
        logging.getLogger("lightning").setLevel(logging.WARNING)
        began = time.monotonic()
        try:
            told = registry.load("bench", entry.maker).compete(entry, data, folder, minutes, Nobody())
        except Exception as error:
            traceback.print_exc()
            told = {"failure": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        _write(folder, {"train_seconds": round(time.monotonic() - began, 1)} | told)


def _write(folder: Path, told: dict[str, Any]) -> None:
    write_json(folder / RESULT, told)
