"""From what a person asks to the command line of a training. Every word is checked here; no shell ever sees it."""

from __future__ import annotations

import re
from pathlib import Path

from inspect_kd import weights, zoo
from inspect_kd.apps.studio.data_folders import inside
from inspect_kd.apps.studio.training_record import Order
from inspect_kd.child_process import python_command
from inspect_kd.config import Recipe, load_recipe
from inspect_kd.errors import UsageError

DEFAULT, FALLBACK = "omni_ad", "embedded"
QUICK = 4
"""A quick training does one step in so many."""
FEWEST_STEPS, EVALUATIONS, LARGEST_SEED = 20, 5, 2**31 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")


def recipes() -> list[tuple[str, str]]:
    """(name, what it is), students before teachers, the default first."""
    known = [load_recipe(name) for name in zoo.names("models")]
    known.sort(key=lambda recipe: (bool(recipe.teacher), recipe.name != DEFAULT, recipe.name))
    return [(recipe.name, recipe.about) for recipe in known]


def default_recipe() -> str:
    """The default, or what needs no download. The Studio asks no other host: what is not here counts as not to be had."""
    encoder = str(load_recipe(DEFAULT).student["encoder"])
    return DEFAULT if weights.find_local(encoder) is not None or _downloaded_before(encoder) else FALLBACK


def _downloaded_before(encoder: str) -> bool:
    """Whether the hub's own cache holds weights of this name."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    return any(cache.glob(f"models--timm--{encoder}.*/snapshots/*/model.safetensors"))


def is_run_name(name: str) -> bool:
    """Whether the Studio can name a run so. The command line allows more; such runs are not offered here."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """A run's name from a client: one folder's name, and nothing that leads anywhere else."""
    if not is_run_name(name):
        raise UsageError(f"{name!r} cannot name a run: letters, digits, '_', '-' and '.', a letter or digit first")
    return name


def proposed_name(data: Path, recipe: str) -> str:
    """As the command line would name it."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", data.stem).strip("._-") or "parts"
    return f"{stem[:40]}-{recipe}"


def command(order: Order, root: Path, runs: Path, name: str, *, resume: bool) -> list[str]:
    """The words of the process; raises on any that a client should not have sent."""
    data = inside(root, order.data)
    if order.recipe not in zoo.names("models"):
        raise UsageError(f"no recipe {order.recipe!r}; there are: {', '.join(zoo.names('models'))}")
    if not 0 <= order.seed <= LARGEST_SEED:
        raise UsageError(f"seed {order.seed}: take a number from 0 to {LARGEST_SEED}")
    words = python_command("-m", "inspect_kd", "train", "--data", str(data), "--model", order.recipe)
    words += ["--out", str(runs), "--name", checked_name(name)]
    for change in changes(load_recipe(order.recipe), order):
        words += ["--set", change]
    return [*words, "--resume"] if resume else words


def changes(recipe: Recipe, order: Order) -> list[str]:
    """What the order changes of its recipe; nothing where it can stay, so that its digest does too."""
    changed = [] if order.seed == recipe.fit.seed else [f"fit.seed={order.seed}"]
    if not order.quick:
        return changed
    if recipe.teacher:
        return [*changed, f"teach.epochs={max(1, recipe.teach.epochs // QUICK)}"]
    steps = max(FEWEST_STEPS, recipe.fit.steps // QUICK)
    often = max(1, steps // EVALUATIONS)
    changed += [f"fit.steps={steps}", f"fit.evaluate_every={often}", f"fit.checkpoint_every={often}"]
    for name, stage in recipe.distill.stages.items():
        changed.append(f"distill.{name}.steps={max(FEWEST_STEPS, stage.steps // QUICK)}")
    return changed
