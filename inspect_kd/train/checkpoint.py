"""Where a stopped training goes on: one safetensors file, replaced in one move, no pickle.

Holds the student, its best self so far, the optimiser's state and, in the header, the step and the early stop's memory.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim import Optimizer

from inspect_kd import atomic_write
from inspect_kd.errors import BadInput

FIT, FITTED = "fit", "fitted"
"""Names of a student's training before the distillation's stages, which have their own."""


@dataclass(kw_only=True, slots=True)
class Progress:
    """What a training remembers between two steps, tensors apart."""

    step: int = 0
    """Over all stages."""
    stage: str = FIT
    stage_step: int = 0
    """Within a stage after the fit."""
    best_step: int = 0
    best_gap: float = -1.0
    stale: int = 0
    """Evaluations since the best one."""
    recipe: str = ""
    data: str = ""
    real: str = ""
    """Labelled and unlabelled parts."""


def trained_state(student: nn.Module) -> dict[str, Tensor]:
    """Everything but the frozen encoder, which comes from its own weights."""
    return {key: value for key, value in student.state_dict().items() if not key.startswith("encoder.")}


def save(
    path: Path,
    student: nn.Module,
    best: dict[str, Tensor],
    optimizer: Optimizer,
    progress: Progress,
    aside: nn.Module | None = None,
) -> None:
    """`aside` is what a stage trains beside the student."""
    tensors = {f"student/{key}": value for key, value in trained_state(student).items()}
    tensors |= {f"best/{key}": value for key, value in best.items()}
    tensors |= {f"aside/{key}": value for key, value in (aside.state_dict() if aside else {}).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items()}
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    atomic_write.remove_abandoned(path.parent)
    atomic_write.write_bytes(path, save_tensors(contiguous, metadata={"progress": json.dumps(asdict(progress))}))


def progress_in(path: Path) -> Progress:
    """How far it had come, without its tensors."""
    with safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {}).get("progress", "{}"))
    if set(header) != {field.name for field in fields(Progress)}:
        raise BadInput(f"{path}: not a checkpoint of this version")
    return Progress(**header)


def load(
    path: Path, student: nn.Module, optimizer: Optimizer | None, aside: nn.Module | None = None
) -> tuple[Progress, dict[str, Tensor]]:
    """Put student and optimiser back; returns the progress and the best weights so far."""
    progress = progress_in(path)
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    student.load_state_dict(_under(tensors, "student"), strict=False)
    if aside is not None:
        aside.load_state_dict(_under(tensors, "aside"))
    if optimizer is not None:
        state: dict[int, dict[str, Any]] = {}
        for key, value in _under(tensors, "optimizer").items():
            index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress, _under(tensors, "best")


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{prefix}/"): value for key, value in tensors.items() if key.startswith(f"{prefix}/")}
