"""Build the command line of a training from a request. Every argument is checked here, and no shell is used."""

from __future__ import annotations

import re
from pathlib import Path

from inspect_kd import config, weights, zoo
from inspect_kd.apps.studio.train.data_folders import folder_below
from inspect_kd.apps.studio.train.record import TrainRequest
from inspect_kd.child_process import python_command
from inspect_kd.config import Recipe, load_recipe
from inspect_kd.errors import UsageError

QUICK_DIVISOR = 4
"""A quick training divides the recipe's steps by this number; its fit is evaluated `QUICK_EVALUATIONS` times."""
MIN_STEPS, QUICK_EVALUATIONS, MAX_SEED = 20, 5, 2**31 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


def list_recipes() -> list[tuple[str, str]]:
    """(name, description) of all recipes: the default first, then students, then teachers."""
    recipes = [load_recipe(name) for name in zoo.names("models")]
    recipes.sort(key=lambda recipe: (bool(recipe.teacher), recipe.name != config.DEFAULT_RECIPE, recipe.name))
    return [(recipe.name, recipe.about) for recipe in recipes]


def default_recipe() -> str:
    """The recipe that the form proposes, chosen by the weights on this machine: the Studio asks no other host."""
    return config.default_recipe(_has_weights)


def _has_weights(encoder: str) -> bool:
    return weights.find_local(encoder) is not None or _is_in_hub_cache(encoder)


def _is_in_hub_cache(encoder: str) -> bool:
    """Whether the hub's own cache contains weights of this name."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    return any(cache.glob(f"models--timm--{encoder}.*/snapshots/*/model.safetensors"))


def is_run_name(name: str) -> bool:
    """Whether the Studio accepts this name of a run. The command line allows more; such runs are not listed here."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return a client's name for a run, or raise if it is not the plain name of one folder."""
    if not is_run_name(name):
        raise UsageError(f"{name!r} cannot name a run: letters, digits, '_', '-' and '.', a letter or digit first")
    return name


def propose_name(data: Path, recipe: str) -> str:
    """The name that `inspect-kd train` would give the run."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", data.stem).strip("._-") or "parts"
    return f"{stem[:40]}-{recipe}"


def build_command(request: TrainRequest, root: Path, runs: Path, name: str, *, resume: bool) -> list[str]:
    """Build the command as a list of arguments; raise on values that a client may not send."""
    data = folder_below(root, request.data)
    if request.recipe not in zoo.names("models"):
        raise UsageError(f"no recipe {request.recipe!r}; there are: {', '.join(zoo.names('models'))}")
    if not 0 <= request.seed <= MAX_SEED:
        raise UsageError(f"seed {request.seed}: take a number from 0 to {MAX_SEED}")
    arguments = python_command("-m", "inspect_kd", "train", "--data", str(data), "--model", request.recipe)
    arguments += ["--out", str(runs), "--name", check_name(name)]
    for change in recipe_changes(load_recipe(request.recipe), request):
        arguments += ["--set", change]
    return [*arguments, "--resume"] if resume else arguments


def recipe_changes(recipe: Recipe, request: TrainRequest) -> list[str]:
    """The `--set` options for this request; none for the recipe's own values, so that its digest stays the same."""
    changes = [] if request.seed == recipe.fit.seed else [f"fit.seed={request.seed}"]
    if not request.quick:
        return changes
    if recipe.teacher:
        return [*changes, f"teach.epochs={max(1, recipe.teach.epochs // QUICK_DIVISOR)}"]
    steps = max(MIN_STEPS, recipe.fit.steps // QUICK_DIVISOR)
    interval = max(1, steps // QUICK_EVALUATIONS)
    changes += [f"fit.steps={steps}", f"fit.evaluate_every={interval}", f"fit.checkpoint_every={interval}"]
    for name, stage in recipe.distill.stages.items():
        changes.append(f"distill.{name}.steps={max(MIN_STEPS, stage.steps // QUICK_DIVISOR)}")
    return changes
