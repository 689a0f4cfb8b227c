"""Builders of jobs, runs and a tiny CLIP, for several test files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect_kd.config import Recipe
    from inspect_kd.datasets import DataSet
    from inspect_kd.training.job import Job

from inspect_kd.types import NoProgress

TINY_CLIP: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 64, "layers": 4, "head_width": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def save_tiny_clip(folder: Path, *, weights: bool = True) -> str:
    """Save a tiny CLIP as open_clip does, and return the name to load it by."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": {}}))
    if weights:
        torch.manual_seed(0)
        state = open_clip.CLIP(**TINY_CLIP).state_dict()
        save_file({key: value.contiguous() for key, value in state.items()}, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def make_job(recipe: Recipe, data: DataSet, folder: Path, **changes: Any) -> Job:
    """Make a job on the CPU that reports no progress. A training replaces the plain presentations by those it fits."""
    from inspect_kd.datasets.presentation import Presentations
    from inspect_kd.datasets.view import View
    from inspect_kd.training.hardware import Hardware
    from inspect_kd.training.job import Job
    from inspect_kd.training.run import RunFolder

    settings: dict[str, Any] = {
        "hardware": Hardware(device="cpu"),
        "progress": NoProgress(),
        "presentations": Presentations.plain(View(size=recipe.data.size)),
    } | changes
    return Job(recipe=recipe, data=data, folder=RunFolder(folder), **settings)


def edit_recipe(run: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a complete run's recipe, and its hash in the manifest, as if the run had been made with the changed recipe."""
    import yaml

    from inspect_kd import weights

    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    edit(recipe)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    manifest = json.loads((run / "run.json").read_text())
    manifest["files"]["recipe.yaml"] = weights.sha256(run / "recipe.yaml")
    (run / "run.json").write_text(json.dumps(manifest))


class InterruptedProgress(NoProgress):
    """Raises KeyboardInterrupt when a given phase begins."""

    def __init__(self, phase: str) -> None:
        self.phase_to_interrupt = phase

    def phase(self, name: str, total: int, done: int = 0) -> None:
        if name == self.phase_to_interrupt:
            raise KeyboardInterrupt
