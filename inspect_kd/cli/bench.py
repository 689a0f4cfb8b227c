"""`inspect-kd bench`: our students beside anomalib's models and a nearest-neighbour memory, in one run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspect_kd.cli.echo import echo

if TYPE_CHECKING:
    from inspect_kd.config import Recipe
    from inspect_kd.datasets import DataSet

STUDENTS = ["omni_ad", "embedded"]


def bench(
    data: Annotated[
        list[str],
        typer.Option("--data", "-d", help="A data set's name, a manifest, or a folder. Repeatable: all in one model."),
    ],
    models: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="Our recipes. Repeatable. Default: omni_ad and embedded.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Peers, see below; `none` for none. Repeatable. Default: all of them."),
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Also one model for each category, beside the one for all.")
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="A peer's training ends after these at the latest. Default: as long as the slowest of ours took.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results; what is finished there is not done again.")] = Path(
        "bench"
    ),
    timing: Annotated[bool, typer.Option(help="Time all files at the end.")] = True,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="No peers: what each part of the distillation is worth to one student.")
    ] = False,
    teachers: Annotated[
        list[str] | None,
        typer.Option("--teachers", "-t", help="With --ablate: recipes or runs of teachers. Repeatable."),
    ] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="With --ablate: images from the line, for the teachers.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="With --ablate: trainings of each arm.")] = 3,
) -> None:
    """Compare accuracy (seven metrics), latency, memory and size with anomalib's models; same images, splits and runtime.

    On our encoder's weights: memory (nearest neighbours), patchcore, padim, stfpm, fastflow, supersimplenet. On ResNet18:
    stfpm_r18, fastflow_r18, padim_r18, reverse_distillation_r18. On their own: efficient_ad, dinomaly. Each is trained in
    a process of its own; one that fails is shown with its reason.

    Writes bench.html (with plots), bench.md, bench.csv and bench.json. Can be stopped and called again: what was finished
    with the same data, recipe and minutes is not done again.

    Examples:

        inspect-kd bench --data mvtec

        inspect-kd bench --data my_parts/ --against patchcore --against stfpm --minutes 5

        inspect-kd bench --data my_parts/ --ablate --teachers memory --teachers clip_ada --seeds 3
    """
    from inspect_kd.bench import page, runner
    from inspect_kd.bench.entries import MEMORY, PEERS, entries
    from inspect_kd.cli.needs import need_training
    from inspect_kd.cli.progress import show_progress
    from inspect_kd.errors import UsageError, file_named
    from inspect_kd.train.run import environment

    need_training()
    if ablate:
        if against or alone or len(models or []) > 1:
            raise UsageError(
                "--ablate compares one student with itself: leave --against, --alone and further --model out"
            )
        ablation(data, (models or STUDENTS)[0], split_names(teachers or []), unlabelled, seeds, out)
        return
    if teachers or unlabelled:
        raise UsageError("--teachers and --unlabelled belong to --ablate")
    students = models or STUDENTS
    chosen = entries(students, [] if against == ["none"] else against or [*MEMORY, *PEERS])
    recipes = comparable(students)
    settings = settings_of(gathered(data, recipes[0]), alone=alone)
    with show_progress() as progress, file_named(out):
        results = runner.run_benchmark(settings, chosen, out, minutes, progress)
        costs = runner.cost(chosen, out, next(iter(settings)), progress) if timing else {}
    run = page.Comparison(entries=chosen, results=results, costs=costs, environment=environment("cpu"))
    with file_named(out):
        written = page.write(out, run)
    echo((out / "bench.md").read_text(encoding="utf-8"))
    echo(f"{written}: the same with plots; bench.csv and bench.json lie beside it")


def split_names(given: list[str]) -> list[str]:
    """Options that may be repeated or hold commas."""
    return [name for each in given for name in each.split(",") if name]


def ablation(data: list[str], model: str, teachers: list[str], unlabelled: Path | None, seeds: int, out: Path) -> None:
    """`--ablate`."""
    from inspect_kd.bench import ablate
    from inspect_kd.cli.progress import show_progress
    from inspect_kd.config import load_recipe
    from inspect_kd.errors import file_named
    from inspect_kd.train.run import environment

    chosen = ablate.arms(teachers, None if unlabelled is None else str(unlabelled))
    with show_progress() as progress, file_named(out):
        results = ablate.ablate(model, gathered(data, load_recipe(model)), chosen, range(seeds), out, progress)
    with file_named(out):
        page = ablate.write(out, chosen, results, environment("cpu"))
    echo(page.read_text(encoding="utf-8"))


def comparable(students: list[str]) -> list[Recipe]:
    """Recipes that look at what the peers look at."""
    from inspect_kd.bench.entries import SIZE
    from inspect_kd.config import load_recipe
    from inspect_kd.errors import UsageError

    recipes = [load_recipe(student) for student in students]
    for recipe in recipes:
        if not recipe.student:
            raise UsageError(f"--model {recipe.name}: a teacher; compared are students, which go to the line")
        if recipe.data.size != SIZE or recipe.data.tile or recipe.data.bits:
            raise UsageError(
                f"--model {recipe.name}: everybody is compared on whole 8-bit images at {SIZE}x{SIZE}; it sets data.size, "
                "data.tile or data.bits"
            )
    return recipes


def gathered(data: list[str], recipe: Recipe) -> DataSet:
    """All data sets as one, split as the recipe says."""
    from inspect_kd.datasets import open_dataset, union
    from inspect_kd.errors import UsageError
    from inspect_kd.train.run import holdout_of

    holdout, asked = holdout_of(recipe), recipe.data
    parts = [open_dataset(one, holdout=holdout, categories=asked.categories or None, group=asked.group) for one in data]
    doubled = Counter(category for part in parts for category in part.categories).most_common(1)
    if doubled and doubled[0][1] > 1:
        raise UsageError(f"--data: two data sets have a category '{doubled[0][0]}'")
    return parts[0] if len(parts) == 1 else union(parts, "+".join(part.name for part in parts))


def settings_of(whole: DataSet, *, alone: bool) -> dict[str, DataSet]:
    """One model for all, and one for each category where that was asked for."""
    settings = {"unified" if len(whole.categories) > 1 else whole.name: whole}
    if alone and len(whole.categories) > 1:
        settings |= {f"{category} alone": whole.only(category) for category in whole.categories}
    return settings
