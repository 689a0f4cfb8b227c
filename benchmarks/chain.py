"""Time the whole chain with empty caches: the teachers train and predict, then one student learns three real categories.
Writes docs/results/chain.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.chain

Needs an idle machine, for half an hour with two cores. Teachers' predictions go into a new cache, since cached ones would cost no
time. A complete run is not repeated; its figures are published again. An interrupted one has no valid times and must be removed first.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from benchmarks.distillation import MODEL, TEACHERS
from benchmarks.real_data import SETS, train
from benchmarks.results import ROOT, Content, publish
from inspect_kd.bench import ablate
from inspect_kd.training.run import environment

RECIPES = {"both teachers": list(ablate.teacher_changes(TEACHERS)), "the default": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "chain")
    out = parser.parse_args().out
    recipes = {}
    for name, changes in RECIPES.items():
        home = out / name.replace(" ", "_")
        if home.exists() and len(complete_runs(home)) < len(list(home.glob("*-*"))):
            parser.error(f"{home}: holds an interrupted run, whose times are not valid; remove the folder")
        os.environ["INSPECT_KD_CACHE"] = str(home / "cache")
        recipes[name] = time_stages(train(list(SETS), MODEL, home, changes), home)
    publish("chain", {"environment": environment("cpu"), "recipes": recipes}, page)


def complete_runs(home: Path) -> list[Path]:
    return sorted(home.glob("*-*/run.json"))


def time_stages(manifest: dict[str, Any], home: Path) -> dict[str, Any]:
    """Divide a run's seconds into the teachers' training and predictions and the student's stages, evaluation and export."""
    trainings = {
        name: json.loads(next(home.glob(f"*-{name}-*/run.json")).read_text()) for name in manifest["taught_by"]
    }
    # The published JSON keeps the words of earlier versions; column_title rewords them.
    seconds = {f"{name} studies": training["train_seconds"] for name, training in trainings.items()}
    for name, cost in manifest["taught_by"].items():
        seconds[f"{name} looks"] = cost["looked_at"] / cost["images_a_second"]
    prediction_seconds = sum(seconds[f"{name} looks"] for name in trainings)
    seconds["S2 and S3, the student's own looks"] = manifest["distill_seconds"] - prediction_seconds
    total = manifest["train_seconds"]
    seconds["the fit, thresholds, figures, export"] = total - sum(seconds.values())
    metrics = {metric: manifest["metrics"]["mean"][metric] for metric in ablate.TABLE_METRICS}
    return {"commit": manifest["commit"], "metrics": metrics, "seconds": seconds, "whole": total}


def page(content: Content) -> str:
    machine, recipes = content["environment"], content["recipes"]
    names = list(dict.fromkeys(stage for run in recipes.values() for stage in run["seconds"]))
    lines = [
        "# The whole chain's time",
        "",
        f"Written by `python -m benchmarks.chain`, {machine['started'][:10]}, {machine['cores']} CPU cores, an idle machine, "
        f"torch {machine['packages']['torch']}. One `{MODEL}` student for {', '.join(SETS)}, all caches empty. Minutes.",
        "",
        "| recipe | "
        + " | ".join([*map(column_title, names), "**together**", "image AUROC / pixel AP / AUPRO", "commit"])
        + " |",
        "|---|" + "---|" * (len(names) + 3),
    ]
    for name, run in recipes.items():
        minutes = [f"{run['seconds'][stage] / 60:.1f}" if stage in run["seconds"] else "–" for stage in names]
        metrics = " / ".join(f"{value:.3f}" for value in run["metrics"].values())
        lines.append(f"| {name} | {' | '.join(minutes)} | **{run['whole'] / 60:.1f}** | {metrics} | {run['commit']} |")
    return "\n".join(lines) + "\n"


def column_title(stage: str) -> str:
    """Reword a stage's name in the published JSON, which keeps the words of earlier versions."""
    stage = stage.replace("the student's own looks", "the student's features")
    return stage.replace(" studies", ": training").replace(" looks", ": predictions")


if __name__ == "__main__":
    main()
