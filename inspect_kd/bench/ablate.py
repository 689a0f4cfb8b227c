"""What each part of the distillation is worth: one student's fit, and from it every arm, on several seeds.

All arms of a seed start from the same fit, so that what differs is what the arm adds.
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
from inspect_kd.config import Recipe, load_recipe
from inspect_kd.datasets import DataSet
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.evaluate import MEAN, SamplePrediction, measure, measures_to_json, predict_samples
from inspect_kd.export.graph import ArtifactGraph, TorchModel
from inspect_kd.train import checkpoint
from inspect_kd.train.distill import Shared, distill
from inspect_kd.train.fit import fit, fitted_student
from inspect_kd.train.hardware import Hardware
from inspect_kd.train.presets import DRAWN, FIT_ALONE, REFINE
from inspect_kd.train.real_parts import real_parts
from inspect_kd.train.run import RunFolder, commit, load_run, resolved, view_of, write_json
from inspect_kd.train.teachers import ready, studies
from inspect_kd.types import Progress, Split

SHOWN = ("image_auroc", "pixel_ap", "pixel_aupro")
RESULT = "result.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    name: str
    changes: tuple[str, ...]
    why: str


ALIGN = ("distill.align.steps=100",)
ALONE = ("distill.blend=[1, 0, 1.5]", "distill.score_blend=[1, 0, 0.25]")
LOOSE = ("distill.tune_decoder=true", "distill.refine.steps=100")
"""Few steps: each costs forty times one of a body at rest."""


def taught_by(teachers: Sequence[str]) -> tuple[str, ...]:
    """Drawn defects, and these teachers."""
    return (*DRAWN, *REFINE, f"distill.teachers={json.dumps(list(teachers))}")


def arms(teachers: Sequence[str], unlabelled: str | None) -> list[Arm]:
    """The fit alone, then one thing more each; the teachers are asked one by one and together."""
    every = [Arm(name="fit", changes=FIT_ALONE, why="S0: the student alone")]
    every.append(Arm(name="drawn", changes=(*FIT_ALONE, *DRAWN), why="S2: a head that learns drawn defects"))
    for teacher in teachers:
        told = taught_by([teacher])
        every += [
            Arm(
                name=f"{teacher}, at its word",
                changes=(*told, "distill.teacher_weights=equal"),
                why="S3 beside S2, every place alike",
            ),
            Arm(name=teacher, changes=told, why="read as drawn defects show"),
        ]
    together = taught_by(teachers)
    if len(teachers) > 1:
        every.append(Arm(name="all teachers", changes=together, why="weighed at each place"))
    if teachers:
        every += [
            Arm(
                name="contrast",
                changes=(*together, "distill.contrast_weight=1"),
                why="and DCKD's push from what it used to say",
            ),
            Arm(
                name="teachers alone",
                changes=(*together, *ALONE),
                why="without what the head on drawn defects says",
            ),
            Arm(name="alignment", changes=(*together, *ALIGN), why="and S1: tokens, relations (RDist), sentences"),
            Arm(
                name="no relations",
                changes=(*together, *ALIGN, "distill.relation_weight=0"),
                why="and S1 without RDist",
            ),
            Arm(name="loosened", changes=(*together, *LOOSE), why="S3 moves the decoder's last part, too"),
            Arm(
                name="streams",
                changes=(*together, *LOOSE, "distill.denoising_weight=0.5"),
                why="and STLM's denoising stream",
            ),
        ]
        if unlabelled is not None:
            more = (*together, f"distill.unlabelled={json.dumps(unlabelled)}")
            every.append(Arm(name="unlabelled", changes=more, why="teachers look at parts from the line too"))
    return every


def ablate(
    model: str, data: DataSet, chosen: Sequence[Arm], seeds: Sequence[int], out: Path, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """By arm, what was measured with each seed. What is finished below `out` is not done again."""
    _fail_early(model, data, chosen)
    results: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in chosen}
    for seed in seeds:
        start, shared = _fit_of(model, data, seed, out, progress), Shared()
        for arm in chosen:
            changes = [f"fit.seed={seed}", f"distill.start={json.dumps(str(start.path))}", *arm.changes]
            recipe = resolved(load_recipe(model, changes))
            progress.note(f"seed {seed}: {arm.name}")
            own = Shared() if recipe.distill.unlabelled else shared
            folder = RunFolder(out / f"seed{seed}" / as_file(arm))
            results[arm.name].append(_measured(recipe, data, folder, own, progress))
    return results


def _fail_early(model: str, data: DataSet, chosen: Sequence[Arm]) -> None:
    """Before hours have passed: whether all arms are recipes, and there is something to measure them on."""
    for arm in chosen:
        load_recipe(model, list(arm.changes))
    outlined = [sample for sample in data.select(Split.TEST) if sample.mask is not None]
    if not outlined:
        raise BadInput(f"{data.name}: no test part with a mask; the ablation compares pixel AP and AUPRO")


def _fit_of(model: str, data: DataSet, seed: int, out: Path, progress: Progress) -> RunFolder:
    folder = RunFolder(out / f"seed{seed}" / "start")
    recipe = resolved(load_recipe(model, [f"fit.seed={seed}", *FIT_ALONE]))
    if folder.complete:
        there = load_run(folder.path)
        if there.manifest["data"]["digest"] != data.digest:
            raise UsageError(
                f"{folder.path} is of other parts ({there.manifest['data']['name']}); choose another --out"
            )
        if there.recipe.fit != recipe.fit:
            raise UsageError(f"{folder.path} was fitted otherwise; choose another --out")
    else:
        fit(recipe, data, folder, hardware=Hardware(), progress=progress, resume=folder.checkpoint.is_file())
    return folder


def _measured(recipe: Recipe, data: DataSet, folder: RunFolder, shared: Shared, progress: Progress) -> dict[str, Any]:
    """The arm's student on the test split. No artifact and no report: only the figures count here."""
    real, runs = real_parts(recipe, data, progress), folder.path.parents[1]
    asked = {
        "recipe": recipe.digest(),
        "data": data.digest,
        "real": real.digest,
        "teachers": studies(recipe.distill.teachers, recipe, data),
    }
    done = folder.path / RESULT
    if done.is_file():
        told: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        if asked.items() <= told.items():
            return told
    began = time.monotonic()
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.metrics.unlink(missing_ok=True)
    student = fitted_student(recipe, data).to(Hardware().fabric().device)
    facts: dict[str, Any] = {}
    if recipe.distill.stages:
        teachers = ready(recipe.distill.teachers, recipe, data, runs, Hardware(), progress)
        state = checkpoint.TrainingState(stage=checkpoint.FITTED)
        facts = distill(recipe, data, folder, student, teachers, state, progress, real, shared)
    seconds = round(time.monotonic() - began, 1)
    folder.checkpoint.unlink(missing_ok=True)
    test = data.select(Split.TEST)
    progress.phase("evaluate", len(test))
    model = TorchModel(ArtifactGraph(student.cpu(), 1.0), recipe.data.size)
    parts = predict_samples(model, test, view_of(recipe), bits=recipe.data.bits)
    metrics = measures_to_json(measure(_counted(parts, progress)))
    told = {
        "seed": recipe.fit.seed,
        **asked,
        "commit": commit(),
        "threads": torch.get_num_threads(),
        "metrics": metrics,
        "seconds": seconds,
        **facts,
    }
    write_json(done, told)
    return told


def _counted(parts: Iterator[SamplePrediction], progress: Progress) -> Iterator[SamplePrediction]:
    for part in parts:
        progress.advance()
        yield part


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
    """Its json and its md; the path of the second."""
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
        "Seeds differ in the fit and in the order of what is learnt after it; drawn parts, teachers and the heads' first numbers "
        f"are the same. Minutes are of {_threads(results)} and without the teachers' own study; the first arm of a seed gathers for all.",
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
        fits = {told["seed"]: told for told in first}
        same = [fits[told["seed"]] for told in seeds if told["seed"] in fits] or first
        gain = " / ".join(f"{_mean(seeds, MEAN, m) - _mean(same, MEAN, m):+.3f}" for m in SHOWN)
        minutes = mean(told.get("distill_seconds", told["seconds"]) for told in seeds) / 60
        commits = ", ".join(dict.fromkeys(told.get("commit") or "–" for told in seeds))
        lines.append(
            f"| {arm.name} | {arm.why} | {' | '.join(cells)} | {whole} | {gain} | {len(seeds)} | {minutes:.1f} | {commits} |"
        )
    return [*lines, *_looks(results)]


def _looks(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """What each teacher's looks cost the first time, and the times after it."""
    asked: dict[str, list[Mapping[str, Any]]] = {}
    for told in (told for seeds in results.values() for told in seeds):
        for teacher, looks in told.get("taught_by", {}).items():
            asked.setdefault(teacher, []).append(looks)
    asked = {teacher: every for teacher, every in asked.items() if any(looks["looked_at"] for looks in every)}
    if not asked:
        return
    yield from (
        "",
        "## The teachers' looks",
        "",
        f"On {_threads(results)}; what they said is kept on disk in half precision.",
        "",
    )
    yield "| teacher | drawn parts | looks a second | MB on disk by then | distillations that asked again for none |"
    yield "|---|---|---|---|---|"
    for teacher, every in asked.items():
        first = max(every, key=lambda looks: looks["looked_at"])
        again = sum(not looks["looked_at"] for looks in every)
        rate = f"{first['images_a_second']:.1f}"
        cells = (teacher, f"{first['images']:,}", rate, f"{first['cache_mb']:.0f}", f"{again} of {len(every)}")
        yield f"| {' | '.join(cells)} |"


def _threads(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What was measured before it was written down had one."""
    counts = sorted({int(told.get("threads", 1)) for seeds in results.values() for told in seeds})
    return "one thread" if counts == [1] else f"{' or '.join(map(str, counts))} threads"


def _mean(seeds: Sequence[Mapping[str, Any]], category: str, metric: str) -> float:
    return float(mean(told["metrics"][category][metric] for told in seeds))


def _spread(seeds: Sequence[Mapping[str, Any]], metric: str) -> str:
    """One seed has none."""
    values = [told["metrics"][MEAN][metric] for told in seeds]
    return f" ± {stdev(values):.3f}" if len(values) > 1 else ""
