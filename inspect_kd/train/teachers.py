"""Teachers for a student: a run that is there, or one that is made on the way, beside the student's own."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from inspect_kd import licences, zoo
from inspect_kd.config import Recipe, load_recipe
from inspect_kd.datasets import DataSet
from inspect_kd.errors import UsageError
from inspect_kd.models.base import Teacher
from inspect_kd.train.hardware import Hardware
from inspect_kd.train.run import RunFolder, load_run, resolved
from inspect_kd.train.teach import teach
from inspect_kd.types import Progress
from inspect_kd.work_folder import DAY_S, work_folder


def ready(
    names: Sequence[str], recipe: Recipe, data: DataSet, out: Path, hardware: Hardware, progress: Progress
) -> dict[str, Teacher]:
    """By name. A teacher that has not studied this very data studies it first, as `inspect-kd train --model` would let it."""
    found: dict[str, Teacher] = {}
    for name in names:
        folder = _run_of(name, recipe, data, out, hardware, progress)
        finished = load_run(folder.path)
        if not isinstance(finished.model, Teacher):
            raise UsageError(f"--teachers {name}: a student; teachers are: {', '.join(teachers_in_the_zoo())}")
        if finished.recipe.name in found:
            raise UsageError(f"--teachers: two of them are called '{finished.recipe.name}'")
        if finished.manifest["data"]["digest"] != data.digest:
            if finished.recipe.teach.labelled:
                raise UsageError(
                    f"--teachers {name}: it studied real defects beside other parts than these; some may be in this test. Name its "
                    "recipe instead of its run, then it studies these parts"
                )
            progress.note(
                f"{name}: it studied other parts than these ({finished.manifest['data']['name']}); if parts that are held out here "
                "were among them, it is trusted more than it deserves"
            )
        licences.check(recipe.profile, {source.name: source.licence for source in finished.model.sources})
        found[finished.recipe.name] = finished.model
    return found


def teachers_in_the_zoo() -> list[str]:
    return [name for name in zoo.names("models") if load_recipe(name).teacher]


def studies(names: Sequence[str], recipe: Recipe, data: DataSet) -> dict[str, str]:
    """What tells one study from another, without making it: by name as given."""
    told = {}
    for name in names:
        manifest = RunFolder(Path(name)).manifest
        if manifest.is_file():
            told[name] = hashlib.sha256(manifest.read_bytes()).hexdigest()[:12]
        else:
            told[name] = _identity(_seeing_alike(load_recipe(name), recipe), data)
    return told


def _run_of(name: str, recipe: Recipe, data: DataSet, out: Path, hardware: Hardware, progress: Progress) -> RunFolder:
    """A folder is taken as it is; of a recipe the run that it makes of this data."""
    if (Path(name) / "run.json").is_file():
        return RunFolder(Path(name))
    teacher = _seeing_alike(load_recipe(name), recipe)
    if not teacher.teacher:
        raise UsageError(f"--teachers {name}: a student's recipe; teachers are: {', '.join(teachers_in_the_zoo())}")
    folder = RunFolder(out / f"{data.name}-{teacher.name}-{_identity(teacher, data)}")
    if not folder.complete:
        progress.note(f"{teacher.name} studies first: {folder.path}")
        out.mkdir(parents=True, exist_ok=True)
        # Out of sight of another training that wants the same teacher: whoever is ready first puts it there.
        with work_folder(out, "studying", abandoned_after_s=7 * DAY_S) as room:
            own = RunFolder(room / folder.path.name)
            teach(teacher, data, own, hardware=hardware, progress=progress)
            if not folder.complete:
                shutil.rmtree(folder.path, ignore_errors=True)
                own.path.rename(folder.path)
    return folder


def _seeing_alike(teacher: Recipe, student: Recipe) -> Recipe:
    """The teacher must not see what the student's data section leaves out. Its seed stays its own: one study for all students."""
    same = ("calibration", "validation", "test", "group", "categories", "bits", "flip", "cache_mb")
    data = teacher.data.model_copy(update={key: getattr(student.data, key) for key in same})
    return teacher.model_copy(update={"data": data, "profile": student.profile})


def _identity(teacher: Recipe, data: DataSet) -> str:
    """Of what its study depends on: a new setting of some student's distillation lets no teacher study again."""
    return f"{resolved(teacher).digest(without={'distill'})[:6]}{data.digest[:6]}"
