"""Compare five labels per category chosen by label-next with five chosen at random. Writes docs/results/labelling.{json,md}.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.labelling [--base RUN] [--seeds 0 1 2 3 4]

Half of the test parts, sound and defective, represent unlabelled parts from the line. Five of each category are chosen and their
labels revealed. The student of --base (made by `python -m benchmarks.real_data --only unified`) starts from its fit and learns
these labels beside synthetic defects. It is measured on the other half. A finished result is not measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from benchmarks.real_data import SETS, load_categories
from benchmarks.results import ROOT, Content, publish
from inspect_kd.bench.page import TABLE_METRICS
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet
from inspect_kd.evaluate import MEAN, measure, measures_to_json, predict_samples
from inspect_kd.inspector import Inspector
from inspect_kd.label_next import choose_next, defect_probabilities
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.progress_display import show_progress
from inspect_kd.training import checkpoint
from inspect_kd.training.distill import distill, open_distill_dataset
from inspect_kd.training.distill_data import DistillDataset
from inspect_kd.training.hardware import Hardware
from inspect_kd.training.head_inputs import HeadInputs
from inspect_kd.training.job import Job
from inspect_kd.training.real_parts import RealParts
from inspect_kd.training.run import RunFolder, environment, read_presentations, resolve_recipe
from inspect_kd.training.scores import build_torch_model
from inspect_kd.training.warm_start import load_fitted_student
from inspect_kd.types import Sample, Split

MODEL = "omni_ad"
CATEGORIES = list(SETS)
LABELS_PER_CATEGORY = 5
Choose = Callable[[Sequence[Sample], int], list[Sample]]


def split_test_parts(data: DataSet) -> tuple[list[Sample], list[Sample]]:
    """Split the test parts: every second one of each kind represents the line, the student is measured on the others."""
    line_parts, measured_parts = [], []
    for category in data.categories:
        parts = sorted(data.select(Split.TEST, category), key=lambda s: (s.kind, s.image.name))
        line_parts += parts[0::2]
        measured_parts += parts[1::2]
    return line_parts, measured_parts


def sample_line(line_parts: Sequence[Sample], seed: int) -> list[Sample]:
    """Sample four fifths of the line's parts, in random order."""
    order = np.random.default_rng(seed).permutation(len(line_parts))
    return [line_parts[int(i)] for i in order[: round(0.8 * len(line_parts))]]


def choose_at_random(line_parts: Sequence[Sample], seed: int) -> list[Sample]:
    return sample_line(line_parts, seed)[:LABELS_PER_CATEGORY]


def choose_random_defects(line_parts: Sequence[Sample], seed: int) -> list[Sample]:
    """Choose among the defective parts only, as after a search for defects."""
    return [sample for sample in sample_line(line_parts, seed) if sample.defective][:LABELS_PER_CATEGORY]


def choose_by_label_next(artifact: Path) -> Choose:
    inspector = Inspector(artifact, threads=1)
    probabilities: dict[Path, np.ndarray] = {}

    def choose(line_parts: Sequence[Sample], seed: int) -> list[Sample]:
        candidates = sample_line(line_parts, seed)
        for sample in candidates:
            if sample.image not in probabilities:
                probabilities[sample.image] = defect_probabilities(inspector(sample.image).heatmap)
        choices = choose_next([probabilities[s.image] for s in candidates], [], LABELS_PER_CATEGORY)
        return [candidates[choice.index] for choice in choices]

    return choose


def train(
    job: Job, base: Path, labelled: list[Sample], measured_parts: list[Sample], shared_inputs: HeadInputs | None
) -> HeadInputs | None:
    """Distil with these labels and measure, unless the result exists. Return the synthetic samples' head inputs for the other arms."""
    recipe, result_file = job.recipe, job.folder.path / "result.json"
    names = sorted(f"{s.category}/{s.kind}/{s.image.name}" for s in labelled)
    depends_on = [recipe.digest(), job.data.digest, names]
    if result_file.is_file() and json.loads(result_file.read_text())["made_of"] == depends_on:
        return shared_inputs
    job.folder.path.mkdir(parents=True, exist_ok=True)
    job.folder.metrics.unlink(missing_ok=True)
    student = load_fitted_student(job, str(base))
    synthetic_inputs = shared_inputs or HeadInputs(
        student, open_distill_dataset(job, student, {}, RealParts()), job.progress
    )
    inputs = add_labelled(job, student, synthetic_inputs, labelled) if labelled else synthetic_inputs
    distill(job, student, {}, checkpoint.TrainingState(stage=checkpoint.FITTED), inputs)
    job.folder.checkpoint.unlink(missing_ok=True)
    metrics = measures_to_json(
        measure(predict_samples(build_torch_model(student, recipe), measured_parts, job.presentations))
    )
    result = {"metrics": metrics, "defects_among_labels": sum(s.defective for s in labelled), "labels": len(labelled)}
    result_file.write_text(json.dumps(result | {"made_of": depends_on}))
    return synthetic_inputs


def add_labelled(job: Job, student: RebuildStudent, synthetic_inputs: HeadInputs, labelled: list[Sample]) -> HeadInputs:
    """Append labelled parts to the synthetic samples, whose head inputs are reused."""
    base, real = synthetic_inputs.dataset, RealParts(labelled=labelled)
    dataset = DistillDataset(job, side=base.sample_side, grid=base.grid, real=real, cache=base.cache)
    return HeadInputs(student, dataset, job.progress, computed_NChw=synthetic_inputs.all_inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=ROOT / "runs" / "bench" / f"{'-'.join(CATEGORIES)}-{MODEL}")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "labelling")
    arguments = parser.parse_args()
    data = load_categories(CATEGORIES, MODEL)
    line_parts, measured_parts = split_test_parts(data)
    artifact = RunFolder(arguments.base).artifact()
    arms: dict[str, Choose] = {
        "no labels": lambda parts, seed: [],
        "by chance": choose_at_random,
        "defects by chance": choose_random_defects,
        "label-next": choose_by_label_next(artifact),
    }
    shared_inputs = None
    with show_progress() as progress:
        for seed in arguments.seeds:
            for name, choose in arms.items():
                chosen = []
                for category in CATEGORIES:
                    chosen += choose([sample for sample in line_parts if sample.category == category], seed)
                out = arguments.out / name.replace(" ", "_") / f"seed{seed}"
                progress.note(f"seed {seed}, {name}: {sum(s.defective for s in chosen)} defects among {len(chosen)}")
                changes = [f"fit.seed={seed}", f"distill.start={json.dumps(str(arguments.base))}"]
                recipe = resolve_recipe(load_recipe(MODEL, changes))
                job = Job(
                    recipe=recipe,
                    data=data,
                    folder=RunFolder(out),
                    hardware=Hardware(),
                    progress=progress,
                    presentations=read_presentations(RunFolder(arguments.base), recipe),
                )
                shared_inputs = train(job, arguments.base, chosen, measured_parts, shared_inputs)
    results = {name: read_results(arguments.out / name.replace(" ", "_")) for name in arms}
    counts = {"line": len(line_parts), "measured": len(measured_parts)}
    publish("labelling", {"environment": environment("cpu"), **counts, "arms": results}, page)


def read_results(folder: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("seed*/result.json"))]


def describe_split(content: Content) -> str:
    """Describe the split in a sentence; results of earlier versions do not hold its numbers."""
    if "line" not in content:
        return "Half of the test parts stood for the line, the other half measured the student."
    return f"{content['line']} test parts stood for the line, the other {content['measured']} measured the student."


def page(content: Content) -> str:
    machine, results = content["environment"], content["arms"]
    lines = [
        "# Five labels a category",
        "",
        f"Written by `{machine['command']}`, {machine['started'][:10]}, commit {machine['commit']}. {describe_split(content)} "
        f"One student for {', '.join(CATEGORIES)}; all start from one fit and learn synthetic defects and the "
        "labels. A cell: image AUROC / pixel AP / AUPRO, mean over seeds; ± is the standard deviation of the categories' mean.",
        "",
        "| labels chosen | defects among them | " + " | ".join(CATEGORIES) + " | mean | seeds |",
        "|---|---|" + "---|" * (len(CATEGORIES) + 2),
    ]
    for name, seeds in results.items():
        cells = [
            " / ".join(f"{mean(s['metrics'][c][m] for s in seeds):.3f}" for m in TABLE_METRICS) for c in CATEGORIES
        ]
        values = {m: [s["metrics"][MEAN][m] for s in seeds] for m in TABLE_METRICS}
        overall = " / ".join(f"{mean(v):.3f} ± {stdev(v) if len(v) > 1 else 0:.3f}" for v in values.values())
        share = f"{mean(s['defects_among_labels'] for s in seeds):.1f} of {seeds[0]['labels']}"
        lines.append(f"| {name} | {share} | {' | '.join(cells)} | {overall} | {len(seeds)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
