"""Write the files of a run: first its recipe and environment, then the model, last the manifest."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save

from inspect_kd import atomic_write, weights
from inspect_kd.config import Recipe
from inspect_kd.models.base import Student, Teacher
from inspect_kd.training.run.builders import sources_of
from inspect_kd.training.run.folder import RunFolder
from inspect_kd.training.run.provenance import environment


def begin_run(folder: RunFolder, recipe: Recipe, device: str) -> None:
    """Write the recipe, and the environment in which it is trained."""
    folder.path.mkdir(parents=True, exist_ok=True)
    atomic_write.write_text(folder.recipe, f"# inspect-kd train --model {folder.recipe} --data …\n{recipe.to_yaml()}")
    write_json(folder.environment, environment(device))


def write_json(path: Path, content: Any) -> None:
    atomic_write.write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def save_model(folder: RunFolder, model: Student | Teacher) -> Path:
    """Save a whole student, or what a teacher has learned; the header lists the pretrained weights they are based on."""
    if isinstance(model, Teacher):
        path, tensors = folder.teacher, model.adapted_state()
    else:
        path, tensors = folder.student, model.state_dict()
    header = {"sources": json.dumps([asdict(source) for source in sources_of(model)])}
    content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, metadata=header)
    atomic_write.write_bytes(path, content)
    return path


def write_manifest(folder: RunFolder, model: Student | Teacher, facts: dict[str, Any]) -> None:
    """Complete the run by its manifest: facts, sources of its weights, digests of its files."""
    saved = folder.teacher if isinstance(model, Teacher) else folder.student
    digests = {
        file.name: weights.sha256(file) for file in (folder.recipe, saved, folder.calibration, folder.presentation)
    }
    provenance: dict[str, Any] = {"sources": [asdict(source) for source in sources_of(model)]}
    if isinstance(model, Student):
        encoder: Any = model.encoder
        provenance["encoder"] = asdict(encoder.spec)
    write_json(folder.manifest, {"schema": 1, **facts, **provenance, "files": digests})
