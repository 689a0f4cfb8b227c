"""What several files of tests are built from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from inspect_kd.config import Recipe
    from inspect_kd.datasets import DataSet
    from inspect_kd.models.students import omni_ad
    from inspect_kd.train.job import Job

from inspect_kd.types import NoProgress

TINY_CLIP: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 64, "layers": 4, "head_width": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def clip_folder(folder: Path, *, weights: bool = True) -> str:
    """A tiny CLIP as open_clip saves one; the name of the model in it."""
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


def small_student(**changes: Any) -> omni_ad.Student:
    """An Omni-AD student of a few thousand weights, always with the same ones."""
    import torch

    from inspect_kd.models.encoders import build_encoder
    from inspect_kd.models.rebuild import Compare
    from inspect_kd.models.students import omni_ad

    torch.manual_seed(0)
    compare = (Compare(strides=(4, 8), prototypes=8), Compare(strides=(16,), prototypes=16, weight=2.0))
    options: dict[str, Any] = {"dims": (32, 24, 16), "neck": 16, "bottleneck": 1, "compare": compare} | changes
    return omni_ad.build(omni_ad.Config(encoder="embedded", **options), build_encoder("embedded"))


def random_images(count: int = 2, size: int = 64, seed: int = 0) -> Tensor:
    """(B, 3, H, W), 0..255."""
    import torch

    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 255


def make_job(recipe: Recipe, data: DataSet, folder: Path, **changes: Any) -> Job:
    """A silent job on the CPU."""
    from inspect_kd.train.hardware import Hardware
    from inspect_kd.train.job import Job
    from inspect_kd.train.run import RunFolder
    from inspect_kd.types import NoProgress

    settings: dict[str, Any] = {"hardware": Hardware(device="cpu"), "progress": NoProgress()} | changes
    return Job(recipe=recipe, data=data, folder=RunFolder(folder), **settings)


def edit_recipe(run: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a complete run's recipe, as if the run had been made with it."""
    import yaml

    from inspect_kd import weights

    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    edit(recipe)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    manifest = json.loads((run / "run.json").read_text())
    manifest["files"]["recipe.yaml"] = weights.sha256(run / "recipe.yaml")
    (run / "run.json").write_text(json.dumps(manifest))


class InterruptedProgress(NoProgress):
    """Interrupts the training where a phase begins."""

    def __init__(self, phase: str) -> None:
        self.interrupted = phase

    def phase(self, name: str, total: int, done: int = 0) -> None:
        if name == self.interrupted:
            raise KeyboardInterrupt
