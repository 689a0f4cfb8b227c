"""How long is the whole chain, with nothing done before? Teachers study and look, then one student learns three real categories.
Writes docs/results/chain.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python benchmarks/chain.py

Needs an idle machine, half an hour with two cores. What the teachers say is kept in a folder of its own, as looks from an earlier day
would cost nothing. A run that is complete is published again; one that broke off says nothing and must be removed first.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from distillation import MODEL, TEACHERS
from real_data import RESULTS, ROOT, SETS, train

from inspect_kd.bench import ablate
from inspect_kd.train.run import environment

RECIPES = {"both teachers": list(ablate.taught_by(TEACHERS)), "the default": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "chain")
    out = parser.parse_args().out
    told = {}
    for name, changes in RECIPES.items():
        home = out / name.replace(" ", "_")
        if home.exists() and len(complete(home)) < len(list(home.glob("*-*"))):
            parser.error(f"{home}: a run there broke off, and its time cannot be told; remove the folder")
        os.environ["INSPECT_KD_CACHE"] = str(home / "cache")
        told[name] = parts(train(list(SETS), MODEL, home, changes), home)
    write(told)


def complete(home: Path) -> list[Path]:
    return sorted(home.glob("*-*/run.json"))


def parts(manifest: dict[str, Any], home: Path) -> dict[str, Any]:
    """Seconds. What is no teacher's and comes after the fit is the student's own: its looks, its stages, its figures and export."""
    studies = {name: json.loads(next(home.glob(f"*-{name}-*/run.json")).read_text()) for name in manifest["taught_by"]}
    seconds = {f"{name} studies": study["train_seconds"] for name, study in studies.items()}
    for name, look in manifest["taught_by"].items():
        seconds[f"{name} looks"] = look["looked_at"] / look["images_a_second"]
    looks = sum(seconds[f"{name} looks"] for name in studies)
    seconds["S2 and S3, the student's own looks"] = manifest["distill_seconds"] - looks
    whole = manifest["train_seconds"]
    seconds["the fit, thresholds, figures, export"] = whole - sum(seconds.values())
    metrics = {metric: manifest["metrics"]["mean"][metric] for metric in ablate.SHOWN}
    return {"commit": manifest["commit"], "metrics": metrics, "seconds": seconds, "whole": whole}


def write(told: dict[str, dict[str, Any]]) -> None:
    machine = environment("cpu")
    (RESULTS / "chain.json").write_text(json.dumps({"environment": machine, "recipes": told}, indent=1) + "\n")
    names = list(dict.fromkeys(part for one in told.values() for part in one["seconds"]))
    lines = [
        "# The whole chain's time",
        "",
        f"Written by `python benchmarks/chain.py`, {machine['started'][:10]}, {torch.get_num_threads()} threads of "
        f"{machine['cores']} CPU cores, an idle machine, "
        f"torch {machine['packages']['torch']}. One `{MODEL}` student for {', '.join(SETS)}; nothing had been done before. Minutes.",
        "",
        "| recipe | " + " | ".join([*names, "**together**", "image AUROC / pixel AP / AUPRO", "commit"]) + " |",
        "|---|" + "---|" * (len(names) + 3),
    ]
    for name, one in told.items():
        minutes = [f"{one['seconds'][part] / 60:.1f}" if part in one["seconds"] else "–" for part in names]
        metrics = " / ".join(f"{value:.3f}" for value in one["metrics"].values())
        lines.append(f"| {name} | {' | '.join(minutes)} | **{one['whole'] / 60:.1f}** | {metrics} | {one['commit']} |")
    path = RESULTS / "chain.md"
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


if __name__ == "__main__":
    main()
