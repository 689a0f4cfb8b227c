"""Ablation of the distillation: train one student with each part of it added or left out, on several seeds.

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
from inspect_kd.training.run import RunFolder, commit, load_run, resolve_recipe, view_of, write_json
from inspect_kd.training.scores import build_torch_model
from inspect_kd.training.teachers import open_teachers, teacher_identities
from inspect_kd.training.warm_start import load_fitted_student
from inspect_kd.types import Progress, Split

SHOWN = ("image_auroc", "pixel_ap", "pixel_aupro")
RESULT = "result.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One variant of the training, as changes of the recipe."""

    name: str
    changes: tuple[str, ...]
    why: str
    """Its row's explanation on the page."""


ALIGN = ("distill.align.steps=100",)
TEACHERS_ALONE = ("distill.blend=[1, 0, 1.5]", "distill.score_blend=[1, 0, 0.25]")
TUNE_DECODER = ("distill.tune_decoder=true", "distill.refine.steps=100")
"""Few steps: each costs forty times one with a frozen body."""


def taught_by(teachers: Sequence[str]) -> tuple[str, ...]:
    """Changes of the recipe that add drawn defects and these teachers."""
    return (*LABEL_HEAD, *REFINE, f"distill.teachers={json.dumps(list(teachers))}")


def arms(teachers: Sequence[str], unlabelled: str | None) -> list[Arm]:
    """The fit alone, then arms that each add one part; teachers one by one and together."""
    every = [Arm(name="fit", changes=FIT_ALONE, why="S0: the student alone")]
    every.append(Arm(name="drawn", changes=(*FIT_ALONE, *LABEL_HEAD), why="S2: a head that learns drawn defects"))
    for teacher in teachers:
        changes = taught_by([teacher])
        every += [
            Arm(
                name=f"{teacher}, at its word",
                changes=(*changes, "distill.teacher_weights=equal"),
                why="S3 beside S2, all places weigh the same",
            ),
            Arm(name=teacher, changes=changes, why="weighted by reliability on drawn defects"),
        ]
    together = taught_by(teachers)
    if len(teachers) > 1:
        every.append(Arm(name="all teachers", changes=together, why="weighted at each place"))
    if teachers:
        every += [
            Arm(
                name="contrast",
                changes=(*together, "distill.contrast_weight=1"),
                why="and DCKD's push away from the earlier student",
            ),
            Arm(
                name="teachers alone",
                changes=(*together, *TEACHERS_ALONE),
                why="without the output of the head on drawn defects",
            ),
            Arm(name="alignment", changes=(*together, *ALIGN), why="and S1: tokens, relations (RDist), class vectors"),
            Arm(
                name="no relations",
                changes=(*together, *ALIGN, "distill.relation_weight=0"),
                why="and S1 without RDist",
            ),
            Arm(name="loosened", changes=(*together, *TUNE_DECODER), why="S3 trains the decoder's last part, too"),
            Arm(
                name="streams",
                changes=(*together, *TUNE_DECODER, "distill.denoising_weight=0.5"),
                why="and STLM's denoising stream",
            ),
        ]
        if unlabelled is not None:
            more = (*together, f"distill.unlabelled={json.dumps(unlabelled)}")
            every.append(Arm(name="unlabelled", changes=more, why="teachers predict parts from the line too"))
    return every


def ablate(
    model: str, data: DataSet, chosen: Sequence[Arm], seeds: Sequence[int], out: Path, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """Train and measure each arm with each seed: results by arm. Finished ones below `out` are read, not made again."""
    _check_arms(model, data, chosen)
    results: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in chosen}
    for seed in seeds:
        start = _fit_of(model, data, seed, out, progress)
        shared: dict[int, HeadInputs] = {}
        for arm in chosen:
            changes = [f"fit.seed={seed}", f"distill.start={json.dumps(str(start.path))}", *arm.changes]
            recipe = resolve_recipe(load_recipe(model, changes))
            progress.note(f"seed {seed}: {arm.name}")
            folder = RunFolder(out / f"seed{seed}" / as_file(arm))
            job = Job(recipe=recipe, data=data, folder=folder, hardware=Hardware(), progress=progress)
            results[arm.name].append(_measured(job, start, {} if recipe.distill.unlabelled else shared))
    return results


def _check_arms(model: str, data: DataSet, chosen: Sequence[Arm]) -> None:
    """Fail before hours have passed: all arms must be recipes, and the data must have defects with masks."""
    for arm in chosen:
        load_recipe(model, list(arm.changes))
    outlined = [sample for sample in data.select(Split.TEST) if sample.mask is not None]
    if not outlined:
        raise BadInput(f"{data.name}: no test part with a mask; the ablation compares pixel AP and AUPRO")


def _fit_of(model: str, data: DataSet, seed: int, out: Path, progress: Progress) -> RunFolder:
    """The run of the fit alone, from which all arms of a seed start."""
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


def _measured(job: Job, start: RunFolder, shared: dict[int, HeadInputs]) -> dict[str, Any]:
    """Measure the arm's student on the test split. There is no artifact and no report: only the figures count here."""
    recipe, data, folder = job.recipe, job.data, job.folder
    real = open_real_parts(job)
    identity = {
        "recipe": recipe.digest(),
        "data": data.digest,
        "real": real.digest,
        "teachers": teacher_identities(recipe, data),
    }
    path = folder.path / RESULT
    if path.is_file():
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if identity.items() <= result.items():
            return result
    began = time.monotonic()
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.metrics.unlink(missing_ok=True)
    student = load_fitted_student(job, str(start.path)).to(job.hardware.fabric().device)
    facts = _distilled(job, student, real, shared) if recipe.distill.stages else {}
    seconds = round(time.monotonic() - began, 1)
    folder.checkpoint.unlink(missing_ok=True)
    result = {
        "seed": recipe.fit.seed,
        **identity,
        "commit": commit(),
        "threads": torch.get_num_threads(),
        "metrics": _metrics(job, student.cpu()),
        "seconds": seconds,
        **facts,
    }
    write_json(path, result)
    return result


def _distilled(job: Job, student: RebuildStudent, real: RealParts, shared: dict[int, HeadInputs]) -> dict[str, Any]:
    """Distil the arm's student. `shared` keeps, by the side of the images, what the arms of one fit need not compute twice."""
    teachers = open_teachers(job, pipeline.train, job.folder.path.parents[1])
    dataset = open_distill_dataset(job, student, teachers, real)
    if dataset.side not in shared:
        shared.clear()  # those of one size fill a gigabyte
        shared[dataset.side] = HeadInputs(student, dataset, job.progress)
    return distill(job, student, teachers, TrainingState(stage=FITTED), shared[dataset.side])


def _metrics(job: Job, student: RebuildStudent) -> dict[str, dict[str, float | str | None]]:
    test, recipe = job.data.select(Split.TEST), job.recipe
    job.progress.phase("evaluate", len(test))
    predictions = predict_samples(build_torch_model(student, recipe), test, view_of(recipe), bits=recipe.data.bits)
    return measures_to_json(measure(_counted(predictions, job.progress)))


def _counted(predictions: Iterator[SamplePrediction], progress: Progress) -> Iterator[SamplePrediction]:
    for prediction in predictions:
        progress.advance()
        yield prediction


def as_file(arm: Arm) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in arm.name)


def write(
    out: Path,
    chosen: Sequence[Arm],
    results: Mapping[str, Sequence[Mapping[str, Any]]],
    environment: Mapping[str, Any],
    name: str = "distillation",
    title: str = "What each part of the distillation is worth",
) -> Path:
    """Write the results as JSON and as a Markdown page; returns the path of the page."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / f"{name}.json", {"environment": environment, "arms": results})
    page = out / f"{name}.md"
    atomic_write.write_text(page, "\n".join([f"# {title}", "", *_markdown(chosen, results, environment)]) + "\n")
    return page


def _markdown(
    chosen: Sequence[Arm], results: Mapping[str, Sequence[Mapping[str, Any]]], environment: Mapping[str, Any]
) -> list[str]:
    first = next(iter(results.values()))
    categories = [name for name in first[0]["metrics"] if name != MEAN]
    lines = [
        f"Written by `{environment['command']}`, {environment['started'][:10]}, "
        f"{environment['cores']} CPU cores, torch {environment['packages'].get('torch')}. One model for "
        f"{', '.join(categories)}; all arms of a seed start from the same fit. A cell: "
        "image AUROC / pixel AP / AUPRO, the mean over seeds, of the mean over categories with its spread (standard deviation). "
        "Seeds differ in the fit and in the order of the samples after it; drawn parts, teachers and the heads' initial weights "
        f"are the same. Minutes are of {_threads(results)} and without the training of the teachers; the first arm of a seed "
        "computes for all what they share.",
        "",
        "| arm | | " + " | ".join([*categories, "mean", "against the fit", "seeds", "minutes", "commit"]) + " |",
        "|---|---|" + "---|" * (len(categories) + 5),
    ]
    for arm in chosen:
        seeds = results[arm.name]
        if not seeds:
            continue
        cells = [" / ".join(f"{_mean(seeds, category, m):.3f}" for m in SHOWN) for category in categories]
        whole = " / ".join(f"{_mean(seeds, MEAN, m):.3f}{_spread(seeds, m)}" for m in SHOWN)
        fits = {result["seed"]: result for result in first}
        same = [fits[result["seed"]] for result in seeds if result["seed"] in fits] or first
        gain = " / ".join(f"{_mean(seeds, MEAN, m) - _mean(same, MEAN, m):+.3f}" for m in SHOWN)
        minutes = mean(result.get("distill_seconds", result["seconds"]) for result in seeds) / 60
        commits = ", ".join(dict.fromkeys(result.get("commit") or "–" for result in seeds))
        lines.append(
            f"| {arm.name} | {arm.why} | {' | '.join(cells)} | {whole} | {gain} | {len(seeds)} | {minutes:.1f} | {commits} |"
        )
    return [*lines, *_teacher_costs(results)]


def _teacher_costs(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """What each teacher's predictions cost the first time, and how often none were needed again."""
    costs: dict[str, list[Mapping[str, Any]]] = {}
    for result in (result for seeds in results.values() for result in seeds):
        for teacher, cost in result.get("taught_by", {}).items():
            costs.setdefault(teacher, []).append(cost)
    costs = {teacher: each for teacher, each in costs.items() if any(cost["looked_at"] for cost in each)}
    if not costs:
        return
    yield from (
        "",
        "## The teachers' predictions",
        "",
        f"On {_threads(results)}; predictions are kept on disk in half precision.",
        "",
    )
    yield "| teacher | drawn parts | predictions a second | MB on disk by then | distillations that found all on disk |"
    yield "|---|---|---|---|---|"
    for teacher, each in costs.items():
        first = max(each, key=lambda cost: cost["looked_at"])
        cached = sum(not cost["looked_at"] for cost in each)
        rate = f"{first['images_a_second']:.1f}"
        cells = (teacher, f"{first['images']:,}", rate, f"{first['cache_mb']:.0f}", f"{cached} of {len(each)}")
        yield f"| {' | '.join(cells)} |"


def _threads(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Results from before threads were recorded had one."""
    counts = sorted({int(result.get("threads", 1)) for seeds in results.values() for result in seeds})
    return "one thread" if counts == [1] else f"{' or '.join(map(str, counts))} threads"


def _mean(seeds: Sequence[Mapping[str, Any]], category: str, metric: str) -> float:
    return float(mean(result["metrics"][category][metric] for result in seeds))


def _spread(seeds: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Empty for one seed."""
    values = [result["metrics"][MEAN][metric] for result in seeds]
    return f" ± {stdev(values):.3f}" if len(values) > 1 else ""
