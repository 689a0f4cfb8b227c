"""Ablation of the distillation: train one student with single components added or left out, on several seeds.

All arms of a seed start from the same fit, so that they differ only in what the arm adds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from inspect_kd import atomic_write
from inspect_kd.bench.page import TABLE_METRICS
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.evaluate import MEAN, SamplePrediction, measure, measures_to_json, predict_samples
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.training import pipeline
from inspect_kd.training.checkpoint import FITTED, TrainingState
from inspect_kd.training.distill import distill, open_distill_dataset
from inspect_kd.training.hardware import Hardware
from inspect_kd.training.head_inputs import HeadInputs
from inspect_kd.training.job import Job
from inspect_kd.training.presets import FIT_ALONE, LABEL_HEAD, REFINE
from inspect_kd.training.real_parts import RealParts, open_real_parts
from inspect_kd.training.run import RunFolder, commit, load_run, read_presentations, resolve_recipe, write_json
from inspect_kd.training.scores import build_torch_model
from inspect_kd.training.teachers import open_teachers, teacher_identities
from inspect_kd.training.warm_start import load_fitted_student
from inspect_kd.types import Progress, Split

RESULT_FILE = "result.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One variant of the training, as changes of the recipe."""

    name: str
    changes: tuple[str, ...]
    explanation: str
    """Shown in the arm's row of the page."""


ALIGN = ("distill.align.steps=100",)
TEACHERS_ALONE = ("distill.blend=[1, 0, 1.5]", "distill.score_blend=[1, 0, 0.25]")
TUNE_DECODER = ("distill.tune_decoder=true", "distill.refine.steps=100")
"""Few steps, because each takes forty times as long as with a frozen body."""


def teacher_changes(teachers: Sequence[str]) -> tuple[str, ...]:
    """Return the changes of a recipe that add synthetic defects and these teachers."""
    return (*LABEL_HEAD, *REFINE, f"distill.teachers={json.dumps(list(teachers))}")


def list_arms(teachers: Sequence[str], unlabelled: str | None) -> list[Arm]:
    """List the fit alone, then arms that each add one component; teachers one by one and together."""
    arms = [Arm(name="fit", changes=FIT_ALONE, explanation="S0: the student alone")]
    arms.append(
        Arm(name="drawn", changes=(*FIT_ALONE, *LABEL_HEAD), explanation="S2: a head that learns synthetic defects")
    )
    for teacher in teachers:
        changes = teacher_changes([teacher])
        arms += [
            Arm(
                name=f"{teacher}, at its word",
                changes=(*changes, "distill.teacher_weights=equal"),
                explanation="S2 and S3, all positions weighted equally",
            ),
            Arm(name=teacher, changes=changes, explanation="weighted by reliability on synthetic defects"),
        ]
    all_teachers = teacher_changes(teachers)
    if len(teachers) > 1:
        arms.append(Arm(name="all teachers", changes=all_teachers, explanation="weighted at each position"))
    if teachers:
        arms += [
            Arm(
                name="contrast",
                changes=(*all_teachers, "distill.contrast_weight=1"),
                explanation="and DCKD's push away from the earlier student",
            ),
            Arm(
                name="teachers alone",
                changes=(*all_teachers, *TEACHERS_ALONE),
                explanation="without the output of the head that learns synthetic defects",
            ),
            Arm(
                name="alignment",
                changes=(*all_teachers, *ALIGN),
                explanation="and S1: tokens, relations (RDist), class vectors",
            ),
            Arm(
                name="no relations",
                changes=(*all_teachers, *ALIGN, "distill.relation_weight=0"),
                explanation="and S1 without RDist",
            ),
            Arm(
                name="loosened",
                changes=(*all_teachers, *TUNE_DECODER),
                explanation="S3 trains the decoder's last part, too",
            ),
            Arm(
                name="streams",
                changes=(*all_teachers, *TUNE_DECODER, "distill.denoising_weight=0.5"),
                explanation="and STLM's denoising stream",
            ),
        ]
        if unlabelled is not None:
            changes = (*all_teachers, f"distill.unlabelled={json.dumps(unlabelled)}")
            arms.append(Arm(name="unlabelled", changes=changes, explanation="teachers predict parts from the line too"))
    return arms


def ablate(
    model: str, data: DataSet, arms: Sequence[Arm], seeds: Sequence[int], out: Path, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """Train and measure each arm with each seed: results by arm. Finished results below `out` are reused."""
    _check_arms(model, data, arms)
    results: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in arms}
    for seed in seeds:
        start = _train_fit(model, data, seed, out, progress)
        head_inputs: dict[int, HeadInputs] = {}
        for arm in arms:
            changes = [f"fit.seed={seed}", f"distill.start={json.dumps(str(start.path))}", *arm.changes]
            recipe = resolve_recipe(load_recipe(model, changes))
            progress.note(f"seed {seed}: {arm.name}")
            folder = RunFolder(out / f"seed{seed}" / folder_name(arm))
            job = Job(
                recipe=recipe,
                data=data,
                folder=folder,
                hardware=Hardware(),
                progress=progress,
                presentations=read_presentations(start, recipe),
            )
            results[arm.name].append(_measure_arm(job, start, {} if recipe.distill.unlabelled else head_inputs))
    return results


def _check_arms(model: str, data: DataSet, arms: Sequence[Arm]) -> None:
    """Refuse invalid recipes and data without masks now, not after hours of training."""
    for arm in arms:
        load_recipe(model, list(arm.changes))
    if not any(sample.mask is not None for sample in data.select(Split.TEST)):
        raise BadInput(f"{data.name}: no test part with a mask; the ablation compares pixel AP and AUPRO")


def _train_fit(model: str, data: DataSet, seed: int, out: Path, progress: Progress) -> RunFolder:
    """Train the fit alone, from which all arms of a seed start; a complete run is reused."""
    folder = RunFolder(out / f"seed{seed}" / "start")
    recipe = resolve_recipe(load_recipe(model, [f"fit.seed={seed}", *FIT_ALONE]))
    if folder.is_complete:
        existing = load_run(folder.path)
        if existing.manifest["data"]["digest"] != data.digest:
            raise UsageError(
                f"{folder.path} was trained on other parts ({existing.manifest['data']['name']}); choose another --out"
            )
        if existing.recipe.fit != recipe.fit:
            raise UsageError(f"{folder.path} was fitted with other settings; choose another --out")
    else:
        job = Job(recipe=recipe, data=data, folder=folder, hardware=Hardware(), progress=progress)
        pipeline.train(job, resume=folder.checkpoint.is_file())
    return folder


def _measure_arm(job: Job, start: RunFolder, head_inputs: dict[int, HeadInputs]) -> dict[str, Any]:
    """Train the arm's student and measure it on the test split, without an artifact or report; a finished result is reused."""
    recipe, data, folder = job.recipe, job.data, job.folder
    real_parts = open_real_parts(job)
    identity = {
        "recipe": recipe.digest(),
        "data": data.digest,
        "real": real_parts.digest,
        "teachers": teacher_identities(recipe, data),
    }
    path = folder.path / RESULT_FILE
    if path.is_file():
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if identity.items() <= result.items():
            return result
    began = time.monotonic()
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.metrics.unlink(missing_ok=True)
    student = load_fitted_student(job, str(start.path)).to(job.hardware.fabric().device)
    distillation = _distill_arm(job, student, real_parts, head_inputs) if recipe.distill.stages else {}
    seconds = round(time.monotonic() - began, 1)
    folder.checkpoint.unlink(missing_ok=True)
    result = {
        "seed": recipe.fit.seed,
        **identity,
        "commit": commit(),
        "threads": torch.get_num_threads(),
        "metrics": _measure_metrics(job, student.cpu()),
        "seconds": seconds,
        **distillation,
    }
    write_json(path, result)
    return result


def _distill_arm(
    job: Job, student: RebuildStudent, real_parts: RealParts, head_inputs: dict[int, HeadInputs]
) -> dict[str, Any]:
    """Distil the arm's student, and return the facts about the distillation for its result.

    `head_inputs`: a cache by the side of the images, so that all arms of a seed compute the inputs of the heads once.
    """
    teachers = open_teachers(job, pipeline.train, job.folder.path.parents[1])
    dataset = open_distill_dataset(job, student, teachers, real_parts)
    if dataset.sample_side not in head_inputs:
        head_inputs.clear()  # the inputs for one side take a gigabyte
        head_inputs[dataset.sample_side] = HeadInputs(student, dataset, job.progress)
    return distill(job, student, teachers, TrainingState(stage=FITTED), head_inputs[dataset.sample_side])


def _measure_metrics(job: Job, student: RebuildStudent) -> dict[str, dict[str, float | str | None]]:
    test, recipe = job.data.select(Split.TEST), job.recipe
    job.progress.phase("evaluate", len(test))
    predictions = predict_samples(build_torch_model(student, recipe), test, job.presentations, bits=recipe.data.bits)
    return measures_to_json(measure(_advance_with(predictions, job.progress)))


def _advance_with(predictions: Iterator[SamplePrediction], progress: Progress) -> Iterator[SamplePrediction]:
    for prediction in predictions:
        progress.advance()
        yield prediction


def folder_name(arm: Arm) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in arm.name)


def write(
    out: Path,
    arms: Sequence[Arm],
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    environment: Mapping[str, Any],
    name: str = "distillation",
    title: str = "What each part of the distillation is worth",
) -> Path:
    """Write the results as JSON and as a Markdown page; returns the path of the page."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{name}.json", {"environment": environment, "arms": results})
    page = out / f"{name}.md"
    atomic_write.write_text(page, "\n".join([f"# {title}", "", *_markdown(arms, results, environment)]) + "\n")
    return page


def _markdown(
    arms: Sequence[Arm], results: Mapping[str, Sequence[Mapping[str, Any]]], environment: Mapping[str, Any]
) -> list[str]:
    fit_results = next(iter(results.values()))
    categories = [name for name in fit_results[0]["metrics"] if name != MEAN]
    lines = [
        f"Written by `{environment['command']}`, {environment['started'][:10]}, "
        f"{environment['cores']} CPU cores, torch {environment['packages'].get('torch')}. One model for "
        f"{', '.join(categories)}; all arms of a seed start from the same fit. A cell: "
        "image AUROC / pixel AP / AUPRO, the mean over seeds, of the mean over categories with its standard deviation. "
        "Seeds differ in the fit and in the order of the samples after it; synthetic defects, teachers and the heads' initial weights "
        f"are the same. Minutes are those of {_threads(results)} and without the training of the teachers; those of a seed's first arm "
        "include the computations that all its arms share.",
        "",
        "| arm | | " + " | ".join([*categories, "mean", "against the fit", "seeds", "minutes", "commit"]) + " |",
        "|---|---|" + "---|" * (len(categories) + 5),
    ]
    for arm in arms:
        arm_results = results[arm.name]
        if not arm_results:
            continue
        cells = [" / ".join(f"{_mean(arm_results, category, m):.3f}" for m in TABLE_METRICS) for category in categories]
        means = " / ".join(f"{_mean(arm_results, MEAN, m):.3f}{_std(arm_results, m)}" for m in TABLE_METRICS)
        fit_of_seed = {result["seed"]: result for result in fit_results}
        same_seeds = [fit_of_seed[result["seed"]] for result in arm_results if result["seed"] in fit_of_seed]
        compared = same_seeds or fit_results
        gain = " / ".join(f"{_mean(arm_results, MEAN, m) - _mean(compared, MEAN, m):+.3f}" for m in TABLE_METRICS)
        minutes = mean(result.get("distill_seconds", result["seconds"]) for result in arm_results) / 60
        commits = ", ".join(dict.fromkeys(result.get("commit") or "–" for result in arm_results))
        lines.append(
            f"| {arm.name} | {arm.explanation} | {' | '.join(cells)} | {means} | {gain} | {len(arm_results)} | {minutes:.1f} | {commits} |"
        )
    return [*lines, *_teacher_costs(results)]


def _teacher_costs(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Yield the lines of a table: what each teacher's predictions cost, and how many distillations read all of them from disk."""
    costs: dict[str, list[Mapping[str, Any]]] = {}
    for result in (result for arm_results in results.values() for result in arm_results):
        for teacher, cost in result.get("taught_by", {}).items():
            costs.setdefault(teacher, []).append(cost)
    costs = {name: costs_of for name, costs_of in costs.items() if any(cost["looked_at"] for cost in costs_of)}
    if not costs:
        return
    yield from (
        "",
        "## The teachers' predictions",
        "",
        f"On {_threads(results)}; predictions are kept on disk in half precision.",
        "",
    )
    yield "| teacher | synthetic parts | predictions per second | MB on disk afterwards | distillations that found all on disk |"
    yield "|---|---|---|---|---|"
    for teacher, costs_of in costs.items():
        first = max(costs_of, key=lambda cost: cost["looked_at"])
        cached = sum(not cost["looked_at"] for cost in costs_of)
        rate = f"{first['images_a_second']:.1f}"
        cells = (teacher, f"{first['images']:,}", rate, f"{first['cache_mb']:.0f}", f"{cached} of {len(costs_of)}")
        yield f"| {' | '.join(cells)} |"


def _threads(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Describe the number of threads; results without this entry were measured with one."""
    counts = sorted({int(result.get("threads", 1)) for arm_results in results.values() for result in arm_results})
    return "one thread" if counts == [1] else f"{' or '.join(map(str, counts))} threads"


def _mean(results: Sequence[Mapping[str, Any]], category: str, metric: str) -> float:
    return float(mean(result["metrics"][category][metric] for result in results))


def _std(results: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Return the standard deviation over seeds as text; empty for one seed."""
    values = [result["metrics"][MEAN][metric] for result in results]
    return f" ± {stdev(values):.3f}" if len(values) > 1 else ""
