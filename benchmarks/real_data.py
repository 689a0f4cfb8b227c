"""Measure a recipe on real parts, with each category alone and with all in one model. Writes docs/results/real_data_<model>.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.real_data [--only bottle] [--model omni_ad]

A complete run is not trained again, so the program can be stopped and called again. Rows that are not named by --only stay as
published; each names its commit.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from benchmarks.results import ROOT, Content, load_results, publish
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet, open_for_recipe, union
from inspect_kd.metrics import METRICS
from inspect_kd.progress_display import show_progress
from inspect_kd.training import pipeline
from inspect_kd.training.hardware import Hardware
from inspect_kd.training.job import Job
from inspect_kd.training.run import RunFolder, environment

DEFAULT_MODEL = "omni_ad"
# Category → folder below the data, and a regular expression for file names; images with equal matches show one part.
SETS = {"bottle": ("mvtec_ad", None), "metal_plate": ("mpdd", None), "tile": ("magnetic_tile", r"num_(\d+)")}


def load_categories(names: list[str], model: str) -> DataSet:
    """Join the folders of these categories into one data set."""
    root = Path(os.environ.get("INSPECT_KD_REAL_DATA", ROOT / ".." / "shared" / "data")).resolve()
    recipe = load_recipe(model)
    data_sets = [open_for_recipe(root / SETS[name][0], recipe, group=SETS[name][1]) for name in names]
    return data_sets[0].only(names[0]) if len(names) == 1 else union(data_sets, "-".join(names))


def train(names: list[str], model: str, out: Path, changes: list[str] | None = None) -> dict[str, Any]:
    """Train on these categories, unless that run is complete; return its manifest with its commit."""
    folder = RunFolder(out / f"{'-'.join(names)}-{model}")
    if not folder.is_complete:
        with show_progress() as progress:
            job = Job(
                recipe=load_recipe(model, changes),
                data=load_categories(names, model),
                folder=folder,
                hardware=Hardware(),
                progress=progress,
            )
            pipeline.train(job, resume=folder.checkpoint.is_file())
    manifest: dict[str, Any] = json.loads(folder.manifest.read_text())
    commit = json.loads(folder.environment.read_text())["commit"]
    # The machine's folders are not published.
    data = {key: value for key, value in manifest["data"].items() if key != "source"}
    return manifest | {"data": data, "commit": commit}


def page(content: Content) -> str:
    machine, results = content["environment"], content["runs"]
    command = [*machine["command"].split(), "--model", DEFAULT_MODEL]
    model = command[command.index("--model") + 1]
    lines = [
        f"# Recipe `{model}` on real parts",
        "",
        f"Written by `python -m benchmarks.real_data --model {model}`, {machine['started'][:10]}, {machine['cores']} CPU cores, "
        f"torch {machine['packages']['torch']}. No teachers. No real defect was used for training, early stop or thresholds.",
        "",
        "| run | category | " + " | ".join(METRICS) + " | false NG (promised) | missed | minutes | commit |",
        "|---|---|" + "---|" * (len(METRICS) + 4),
    ]
    for name, manifest in results.items():
        lines += rows(name, manifest)
    return "\n".join(lines) + "\n"


def rows(name: str, manifest: dict) -> list[str]:
    lines = []
    minutes = manifest["train_seconds"] / 60
    for category, metrics in manifest["metrics"].items():
        values = " | ".join(
            f"{metrics[metric]:.4f}" if isinstance(metrics[metric], float) else "–" for metric in METRICS
        )
        decisions = manifest["decisions"].get(category)
        if decisions:
            sound, defective = decisions["sound"], decisions["defective"]
            promise = manifest["promises"][category]["reject"]
            counts = f"{sound['NG']}/{sum(sound.values())} (≤ {100 * promise:.1f} %) | {defective['OK']}/{sum(defective.values())}"
        else:
            counts = "– | –"
        lines.append(f"| {name} | {category} | {values} | {counts} | {minutes:.1f} | {manifest.get('commit', '')} |")
    # For a single category, leave out the mean, which is the same.
    return lines if len(lines) > 2 else lines[:1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[*SETS, "unified"], default=[*SETS, "unified"])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    arguments = parser.parse_args()
    results = load_results(f"real_data_{arguments.model}").get("runs", {})
    for name in arguments.only:
        results[name] = train(list(SETS) if name == "unified" else [name], arguments.model, arguments.out)
        publish(f"real_data_{arguments.model}", {"environment": environment("cpu"), "runs": results}, page)


if __name__ == "__main__":
    main()
