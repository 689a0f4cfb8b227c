"""The figures on real parts: each category alone, and all in one model. Writes docs/results/real_data.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python benchmarks/real_data.py [--only bottle] [--model omni_ad]

A run that is complete is not trained again: the program can be stopped and called again. What is not asked for stays as it was
measured before; each row names its commit.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from inspect_kd.cli.progress import show_progress
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet, open_for_recipe, union
from inspect_kd.metrics import METRICS
from inspect_kd.train import pipeline
from inspect_kd.train.hardware import Hardware
from inspect_kd.train.job import Job
from inspect_kd.train.run import RunFolder, environment

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
# Category -> folder below the data, and which file names show one part.
SETS = {"bottle": ("mvtec_ad", None), "metal_plate": ("mpdd", None), "tile": ("magnetic_tile", r"num_(\d+)")}


def load(names: list[str], model: str) -> DataSet:
    """One data set out of several folders."""
    home = Path(os.environ.get("INSPECT_KD_REAL_DATA", ROOT / ".." / "shared" / "data")).resolve()
    recipe = load_recipe(model)
    parts = [open_for_recipe(home / SETS[name][0], recipe, group=SETS[name][1]) for name in names]
    return parts[0].only(names[0]) if len(names) == 1 else union(parts, "-".join(names))


def train(names: list[str], model: str, out: Path, changes: list[str] | None = None) -> dict[str, Any]:
    folder = RunFolder(out / f"{'-'.join(names)}-{model}")
    if not folder.complete:
        with show_progress() as progress:
            job = Job(
                recipe=load_recipe(model, changes),
                data=load(names, model),
                folder=folder,
                hardware=Hardware(),
                progress=progress,
            )
            pipeline.train(job, resume=folder.checkpoint.is_file())
    manifest: dict[str, Any] = json.loads(folder.manifest.read_text())
    commit = json.loads(folder.environment.read_text())["commit"]
    # Where the data lies on this machine is nobody's business.
    data = {key: value for key, value in manifest["data"].items() if key != "source"}
    return manifest | {"data": data, "commit": commit}


def write(results: dict[str, dict[str, Any]], model: str) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    machine = environment("cpu")
    path = RESULTS / f"real_data_{model}.json"
    path.write_text(json.dumps({"environment": machine, "runs": results}, indent=1) + "\n")
    lines = [
        f"# Recipe `{model}` on real parts",
        "",
        f"Written by `python benchmarks/real_data.py --model {model}`, {machine['started'][:10]}, {machine['cores']} CPU cores, "
        f"torch {machine['packages']['torch']}. No teachers. Thresholds and stopping never saw a real defect.",
        "",
        "| run | category | " + " | ".join(METRICS) + " | false NG (promised) | missed | minutes | commit |",
        "|---|---|" + "---|" * (len(METRICS) + 4),
    ]
    for name, manifest in results.items():
        lines += rows(name, manifest)
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def rows(name: str, manifest: dict) -> list[str]:
    found = []
    minutes = manifest["train_seconds"] / 60
    for category, metrics in manifest["metrics"].items():
        values = " | ".join(
            f"{metrics[metric]:.4f}" if isinstance(metrics[metric], float) else "–" for metric in METRICS
        )
        decisions = manifest["decisions"].get(category)
        if decisions:
            sound, bad = decisions["sound"], decisions["defective"]
            promise = manifest["promises"][category]["reject"]
            told = f"{sound['NG']}/{sum(sound.values())} (≤ {100 * promise:.1f} %) | {bad['OK']}/{sum(bad.values())}"
        else:
            told = "– | –"
        found.append(f"| {name} | {category} | {values} | {told} | {minutes:.1f} | {manifest.get('commit', '')} |")
    return found if len(found) > 2 else found[:1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[*SETS, "unified"], default=[*SETS, "unified"])
    parser.add_argument("--model", default="omni_ad")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    arguments = parser.parse_args()
    kept = RESULTS / f"real_data_{arguments.model}.json"
    results = json.loads(kept.read_text())["runs"] if kept.is_file() else {}
    for name in arguments.only:
        results[name] = train(list(SETS) if name == "unified" else [name], arguments.model, arguments.out)
        write(results, arguments.model)


if __name__ == "__main__":
    main()
