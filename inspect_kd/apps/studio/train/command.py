"""From a request to the command line of a training. Every word is checked here; no shell ever reads it."""

from __future__ import annotations

import re
from pathlib import Path

from inspect_kd import config, weights, zoo
from inspect_kd.apps.studio.train.data_folders import folder_below
from inspect_kd.apps.studio.train.record import TrainRequest
from inspect_kd.child_process import python_command
from inspect_kd.config import Recipe, load_recipe
from inspect_kd.errors import UsageError

QUICK = 4
"""The divisor of the steps of a quick training."""
MIN_STEPS, EVALUATIONS, MAX_SEED = 20, 5, 2**31 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


def recipes() -> list[tuple[str, str]]:
    """(name, description) of all recipes: the default first, then students, then teachers."""
    known = [load_recipe(name) for name in zoo.names("models")]
    known.sort(key=lambda recipe: (bool(recipe.teacher), recipe.name != config.DEFAULT_RECIPE, recipe.name))
    return [(recipe.name, recipe.about) for recipe in known]


def default_recipe() -> str:
    """The recipe that the form proposes. The Studio asks no other host: weights that are not on this machine do not count."""
    return config.default_recipe(_has_weights)


def _has_weights(encoder: str) -> bool:
    return weights.find_local(encoder) is not None or _downloaded_before(encoder)


def _downloaded_before(encoder: str) -> bool:
    """Whether the hub's own cache contains weights of this name."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    return any(cache.glob(f"models--timm--{encoder}.*/snapshots/*/model.safetensors"))


def is_run_name(name: str) -> bool:
    """Whether the Studio accepts this name of a run. The command line allows more; such runs are not listed here."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """Check a run's name from a client: the name of one folder, which leads nowhere else."""
    if not is_run_name(name):
        raise UsageError(f"{name!r} cannot name a run: letters, digits, '_', '-' and '.', a letter or digit first")
    return name


def proposed_name(data: Path, recipe: str) -> str:
    """The name that the command line would give."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", data.stem).strip("._-") or "parts"
    return f"{stem[:40]}-{recipe}"


def command(request: TrainRequest, root: Path, runs: Path, name: str, *, resume: bool) -> list[str]:
    """The words of the command; raises on values that no client may send."""
    data = folder_below(root, request.data)
    if request.recipe not in zoo.names("models"):
        raise UsageError(f"no recipe {request.recipe!r}; there are: {', '.join(zoo.names('models'))}")
    if not 0 <= request.seed <= MAX_SEED:
        raise UsageError(f"seed {request.seed}: take a number from 0 to {MAX_SEED}")
    words = python_command("-m", "inspect_kd", "train", "--data", str(data), "--model", request.recipe)
    words += ["--out", str(runs), "--name", checked_name(name)]
    for change in changes(load_recipe(request.recipe), request):
        words += ["--set", change]
    return [*words, "--resume"] if resume else words


def changes(recipe: Recipe, request: TrainRequest) -> list[str]:
    """Changes of the recipe for this request; none where none is needed, so that the recipe's digest stays the same."""
    changed = [] if request.seed == recipe.fit.seed else [f"fit.seed={request.seed}"]
    if not request.quick:
        return changed
    if recipe.teacher:
        return [*changed, f"teach.epochs={max(1, recipe.teach.epochs // QUICK)}"]
    steps = max(MIN_STEPS, recipe.fit.steps // QUICK)
    interval = max(1, steps // EVALUATIONS)
    changed += [f"fit.steps={steps}", f"fit.evaluate_every={interval}", f"fit.checkpoint_every={interval}"]
    for name, stage in recipe.distill.stages.items():
        changed.append(f"distill.{name}.steps={max(MIN_STEPS, stage.steps // QUICK)}")
    return changed
