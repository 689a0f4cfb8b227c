"""Measure the memory teacher with few or many patches, chosen at random or as a coreset. Writes docs/results/memory.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.memory

Real parts. Takes half an hour on one core. A complete run is not trained again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_data import SETS, load_categories
from benchmarks.results import ROOT, Content, publish
from inspect_kd.bench.page import TABLE_METRICS
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet
from inspect_kd.progress_display import show_progress
from inspect_kd.training import pipeline
from inspect_kd.training.hardware import Hardware
from inspect_kd.training.job import Job
from inspect_kd.training.run import RunFolder, build_teacher, environment

PREDICTIONS = 16
"""Number of predictions whose time is averaged."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "memory")
    out = parser.parse_args().out
    data = load_categories(list(SETS), "memory")
    memories = [
        train_and_measure(data, out / f"{rows}-{'coreset' if coreset else 'random'}", rows=rows, coreset=coreset)
        for rows in (4_096, 16_384)
        for coreset in (False, True)
    ]
    publish("memory", {"environment": environment("cpu"), "memories": memories}, page)


def train_and_measure(data: DataSet, path: Path, *, rows: int, coreset: bool) -> dict[str, Any]:
    recipe = load_recipe("memory", [f"teacher.rows={rows}", f"teacher.coreset={json.dumps(coreset)}"])
    folder = RunFolder(path)
    if not folder.is_complete:
        with show_progress() as progress:
            pipeline.train(Job(recipe=recipe, data=data, folder=folder, hardware=Hardware(), progress=progress))
    metrics = json.loads(folder.manifest.read_text())["metrics"]
    teacher = build_teacher(recipe).eval()
    image = np.zeros((teacher.size, teacher.size, 3), np.uint8)
    began = time.process_time()
    for _ in range(PREDICTIONS):
        teacher.predict([image])
    return {
        "rows": rows,
        "coreset": coreset,
        "metrics": {name: {metric: values[metric] for metric in TABLE_METRICS} for name, values in metrics.items()},
        "look_cpu_ms": 1e3 * (time.process_time() - began) / PREDICTIONS,
        "commit": json.loads(folder.environment.read_text())["commit"],
    }


def page(content: Content) -> str:
    machine = content["environment"]
    names = [*SETS, "mean"]
    lines = [
        "# Size of the memory teacher",
        "",
        f"Written by `python -m benchmarks.memory`, {machine['started'][:10]}, torch {machine['packages']['torch']}. "
        f"The teacher alone, trained on {', '.join(SETS)} together. A cell: image AUROC / pixel AP / AUPRO.",
        "",
        f"| patches in each of four banks | chosen | {' | '.join(names)} | CPU ms per image | commit |",
        "|---|---|" + "---|" * (len(names) + 2),
    ]
    for memory in content["memories"]:
        cells = [" / ".join(f"{value:.3f}" for value in memory["metrics"][name].values()) for name in names]
        chosen = "coreset" if memory["coreset"] else "at random"
        lines.append(
            f"| {memory['rows']:,} | {chosen} | {' | '.join(cells)} | {memory['look_cpu_ms']:.0f} | {memory['commit']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
