"""Ablation of the distillation, with three real categories in one student. Writes docs/results/distillation.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.distillation [--seeds 0 1 2] [--only ARM …]

A finished arm (a variant of the recipe) is not measured again. The page holds all finished arms and the published results of the
others, each with its commit, so the program can be stopped, called again, and run in parallel for another seed. On one core, a seed
takes 7 minutes for the fit and about 8 for each arm; training the teachers takes half an hour, once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.real_data import SETS, load_categories
from benchmarks.results import ROOT, Content, load_results, publish
from inspect_kd.bench import ablate
from inspect_kd.evaluate import MEAN
from inspect_kd.progress_display import show_progress
from inspect_kd.training.run import environment

MODEL = "omni_ad"
TEACHERS = ["clip_ada_local", "sam_spt_tiny"]
"""Small stand-ins for CLIP and SAM."""
MEMORY_ARMS = [
    ablate.Arm(name="memory", changes=ablate.teacher_changes(["memory"]), explanation="the memory as the only teacher"),
    ablate.Arm(
        name="clip_ada_local and memory",
        changes=ablate.teacher_changes(["clip_ada_local", "memory"]),
        explanation="the memory in the place of SAM",
    ),
]
METRICS = dict(zip(ablate.TABLE_METRICS, ("image AUROC", "pixel AP", "AUPRO"), strict=True))
NEGLIGIBLE = 0.0005
"""Smaller differences of a mean metric vanish in three digits, and are called equal."""
REFERENCE_ARMS = {
    "drawn": "fit",
    "all teachers": "drawn",
    "teachers alone": "fit",
    **dict.fromkeys(("contrast", "alignment", "no relations", "loosened", "streams", "memory"), "all teachers"),
}
"""Arm → the arm that it is compared with."""
SeedResults = Sequence[dict[str, Any]]
ResultsByArm = dict[str, SeedResults]


def arms() -> list[ablate.Arm]:
    return [*ablate.list_arms(TEACHERS, None), *MEMORY_ARMS]


def main() -> None:
    names = [arm.name for arm in arms()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "distillation")
    arguments = parser.parse_args()
    chosen = [arm for arm in arms() if arm.name in arguments.only]
    with show_progress() as progress:
        ablate.ablate(MODEL, load_categories(list(SETS), MODEL), chosen, arguments.seeds, arguments.out, progress)
    published = load_results("distillation").get("arms", {})
    results = {arm.name: merge(published.get(arm.name, []), read_results(arguments.out, arm)) for arm in arms()}
    publish("distillation", {"environment": environment("cpu"), "arms": results}, page)


def merge(published: SeedResults, new: SeedResults) -> SeedResults:
    """Combine an arm's results over seeds; a new result replaces the published one of its seed."""
    by_seed = {result["seed"]: result for result in [*published, *new]}
    return [by_seed[seed] for seed in sorted(by_seed)]


def read_results(out: Path, arm: ablate.Arm) -> SeedResults:
    files = sorted(out.glob(f"seed*/{ablate.folder_name(arm)}/{ablate.RESULT_FILE}"))
    return [json.loads(file.read_text()) | {"seed": int(file.parts[-3].removeprefix("seed"))} for file in files]


def page(content: Content) -> str:
    """Return the page: first the findings, then the table of all arms."""
    title, _, rest = table(arms(), content, "distillation", "What each part of the distillation is worth").partition(
        "\n"
    )
    return "\n".join([title, "", *findings(content["arms"]), rest])


def table(chosen: Sequence[ablate.Arm], content: Content, name: str, title: str) -> str:
    """Return the page of an ablation as `inspect-kd bench --ablate` writes it."""
    with TemporaryDirectory() as folder:
        environment = content["environment"] | {"command": f"python -m benchmarks.{name}"}
        return ablate.write(Path(folder), chosen, content["arms"], environment, name, title).read_text()


def findings(results: ResultsByArm) -> list[str]:
    return [
        describe_equality({name: results[name] for name in (*TEACHERS, "all teachers")}),
        "",
        "Differences of the means over categories, on the same seeds:",
        "",
        f"| arm | compared with | {' | '.join(METRICS.values())} | seeds |",
        "|---|---|" + "---|" * (len(METRICS) + 1),
        *(comparison_row(name, other, results) for name, other in REFERENCE_ARMS.items()),
        "",
        "The head on synthetic defects (`drawn`) brings nearly all of the gain, so the default recipe has that head and no teachers. Both "
        "teachers are stand-ins: weights of CLIP and SAM were not available, and nothing here says what those would gain.",
        "",
        "## All arms",
    ]


def describe_equality(compared_arms: ResultsByArm) -> str:
    """Say how far several arms differ, in their means over seeds and in the worst single category and seed."""
    names = ", ".join(f"`{name}`" for name in compared_arms)
    largest = max(value_range([average(seeds, MEAN, metric) for seeds in compared_arms.values()]) for metric in METRICS)
    largest_single = max(
        value_range([result["metrics"][category][metric] for result in results])
        for results in zip(*compared_arms.values(), strict=True)
        for category in results[0]["metrics"]
        for metric in METRICS
    )
    count = len(compared_arms["all teachers"])
    measured = (
        f"their means over {count} seeds differ by {largest:.5f} at most in image AUROC, pixel AP and AUPRO, and the figures of one "
        f"category and seed by {largest_single:.5f}"
    )
    if largest >= NEGLIGIBLE:
        return f"**{names} differ**: {measured}."
    return (
        f"**{names} are equal to within {largest:.4f}** (rounded): {measured}. So the stand-in for SAM, `sam_spt_tiny`, adds nothing "
        "measurable to `clip_ada_local`, which guides it."
    )


def comparison_row(name: str, other: str, results: ResultsByArm) -> str:
    differences = {metric: paired_differences(results[name], results[other], metric) for metric in METRICS}
    # Adding 0 makes a negative zero positive.
    cells = [f"{round(mean(values), 4) + 0.0:+.4f}" for values in differences.values()]
    return f"| `{name}` | `{other}` | {' | '.join(cells)} | {len(differences[ablate.TABLE_METRICS[0]])} |"


def paired_differences(seeds: SeedResults, others: SeedResults, metric: str) -> list[float]:
    """Return the difference of the mean over categories for each seed that both arms have."""
    by_seed = {result["seed"]: result["metrics"][MEAN][metric] for result in others}
    return [result["metrics"][MEAN][metric] - by_seed[result["seed"]] for result in seeds if result["seed"] in by_seed]


def average(seeds: SeedResults, category: str, metric: str) -> float:
    return float(mean(result["metrics"][category][metric] for result in seeds))


def value_range(values: Sequence[float]) -> float:
    return max(values) - min(values)


if __name__ == "__main__":
    main()
