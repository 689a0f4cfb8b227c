"""Time the whole chain with empty caches: the teachers train and predict, then one student learns three real categories.
Writes docs/results/chain.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.chain

Needs an idle machine, half an hour with two cores. The teachers' predictions are cached in a folder of their own, since cached ones
would cost no time. A complete run is published again; an interrupted one has no valid times and must be removed first.
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
        if home.exists() and len(complete(home)) < len(list(home.glob("*-*"))):
            parser.error(f"{home}: holds an interrupted run, whose times are not valid; remove the folder")
        os.environ["INSPECT_KD_CACHE"] = str(home / "cache")
        recipes[name] = parts(train(list(SETS), MODEL, home, changes), home)
    publish("chain", {"environment": environment("cpu"), "recipes": recipes}, page)


def complete(home: Path) -> list[Path]:
    return sorted(home.glob("*-*/run.json"))


def parts(manifest: dict[str, Any], home: Path) -> dict[str, Any]:
    """Seconds of each part of a run. What is not a teacher's is the student's: its features, stages, evaluation and export."""
    studies = {name: json.loads(next(home.glob(f"*-{name}-*/run.json")).read_text()) for name in manifest["taught_by"]}
    seconds = {f"{name} studies": study["train_seconds"] for name, study in studies.items()}
    for name, cost in manifest["taught_by"].items():
        seconds[f"{name} looks"] = cost["looked_at"] / cost["images_a_second"]
    predicting = sum(seconds[f"{name} looks"] for name in studies)
    seconds["S2 and S3, the student's own looks"] = manifest["distill_seconds"] - predicting
    whole = manifest["train_seconds"]
    seconds["the fit, thresholds, figures, export"] = whole - sum(seconds.values())
    metrics = {metric: manifest["metrics"]["mean"][metric] for metric in ablate.TABLE_METRICS}
    return {"commit": manifest["commit"], "metrics": metrics, "seconds": seconds, "whole": whole}


def page(content: Content) -> str:
    machine, recipes = content["environment"], content["recipes"]
    names = list(dict.fromkeys(part for one in recipes.values() for part in one["seconds"]))
    lines = [
        "# The whole chain's time",
        "",
        f"Written by `python -m benchmarks.chain`, {machine['started'][:10]}, {machine['cores']} CPU cores, an idle machine, "
        f"torch {machine['packages']['torch']}. One `{MODEL}` student for {', '.join(SETS)}, all caches empty. Minutes.",
        "",
        "| recipe | "
        + " | ".join([*map(plain, names), "**together**", "image AUROC / pixel AP / AUPRO", "commit"])
        + " |",
        "|---|" + "---|" * (len(names) + 3),
    ]
    for name, one in recipes.items():
        minutes = [f"{one['seconds'][part] / 60:.1f}" if part in one["seconds"] else "–" for part in names]
        metrics = " / ".join(f"{value:.3f}" for value in one["metrics"].values())
        lines.append(f"| {name} | {' | '.join(minutes)} | **{one['whole'] / 60:.1f}** | {metrics} | {one['commit']} |")
    return "\n".join(lines) + "\n"


def plain(part: str) -> str:
    """The column of a part; published JSON keeps the names that it was written with."""
    part = part.replace("the student's own looks", "the student's features")
    return part.replace(" studies", ": training").replace(" looks", ": predictions")


if __name__ == "__main__":
    main()
