"""Where a stopped training goes on: one safetensors file, replaced in one move, no pickle.

Holds the student, its best self so far, the optimiser's state and, in the header, the step and the early stop's memory.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from inspect_kd.errors import BadInput


@dataclass(kw_only=True, slots=True)
class Progress:
    """What a training remembers between two steps, tensors apart."""

    step: int = 0
    best_step: int = 0
    best_gap: float = -1.0
    stale: int = 0
    """Evaluations since the best one."""
    recipe: str = ""
    data: str = ""


def trained_state(student: nn.Module) -> dict[str, Tensor]:
    """Everything but the frozen encoder, which comes from its own weights."""
    return {key: value for key, value in student.state_dict().items() if not key.startswith("encoder.")}


def save(path: Path, student: nn.Module, best: dict[str, Tensor], optimizer: Optimizer, progress: Progress) -> None:
    tensors = {f"student/{key}": value for key, value in trained_state(student).items()}
    tensors |= {f"best/{key}": value for key, value in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in state.items()}
    partial = path.with_suffix(".partial")
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    save_file(contiguous, partial, metadata={"progress": json.dumps(asdict(progress))})
    partial.replace(path)


def load(path: Path, student: nn.Module, optimizer: Optimizer) -> tuple[Progress, dict[str, Tensor]]:
    """Put student and optimiser back; returns the progress and the best weights so far."""
    with safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {}).get("progress", "{}"))
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    if set(header) != {field.name for field in fields(Progress)}:
        raise BadInput(f"{path}: not a checkpoint of this version")
    student.load_state_dict(_under(tensors, "student"), strict=False)
    state: dict[int, dict[str, Any]] = {}
    for key, value in _under(tensors, "optimizer").items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(**header), _under(tensors, "best")


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{prefix}/"): value for key, value in tensors.items() if key.startswith(f"{prefix}/")}
