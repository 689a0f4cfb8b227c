"""Checkpoint from which an interrupted training resumes: one safetensors file, replaced atomically, no pickle.

Holds the student, its best weights so far, the optimizer's state and, in the header, step and state of early stopping.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim import Optimizer

from inspect_kd import atomic_write, config, strict_json, weights
from inspect_kd.errors import BadInput
from inspect_kd.former_names import rename_weights
from inspect_kd.plain_file import open_plain_file

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
TRAIN_AGAIN = "; remove the run's folder and train again"
FIT, FITTED = "fit", "fitted"
"""`TrainingState.stage` before the first stage of the distillation: while the fit runs, and when it is complete."""
ADAM_STATE = {"step", "exp_avg", "exp_avg_sq"}
"""State that AdamW, the only optimizer here, keeps for each updated parameter."""
Count = Annotated[int, Field(ge=0)]


@dataclass(kw_only=True, slots=True)
class TrainingState:
    """How far a training has come: the part of a checkpoint that is not a tensor."""

    step: Count = 0
    """Number of steps taken in all stages."""
    stage: str = FIT
    stage_step: Count = 0
    """Number of steps taken in the current stage; 0 during the fit."""
    best_step: Count = 0
    best_gap: float = -1.0
    """Widest synthetic gap so far, measured at `best_step`; -1 before the first measurement."""
    stale: Count = 0
    """Evaluations since the best one."""
    recipe: str = ""
    """Digest of the recipe."""
    data: str = ""
    """Digest of the data set."""
    real: str = ""
    """Digest of the labelled and unlabelled parts."""


def trained_state(student: nn.Module) -> dict[str, Tensor]:
    """All weights but the frozen encoder's, which are loaded from its own file."""
    return {key: value for key, value in student.state_dict().items() if not key.startswith("encoder.")}


def save(
    path: Path,
    student: nn.Module,
    best: dict[str, Tensor],
    optimizer: Optimizer,
    state: TrainingState,
    auxiliary: nn.Module | None = None,
) -> None:
    """Write a checkpoint. `auxiliary`: the modules that a stage trains beside the student."""
    tensors = {f"student/{key}": value for key, value in trained_state(student).items()}
    tensors |= {f"best/{key}": value for key, value in best.items()}
    tensors |= {f"auxiliary/{key}": value for key, value in (auxiliary.state_dict() if auxiliary else {}).items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": value for key, value in moments.items()}
    contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    atomic_write.remove_abandoned(path.parent)
    atomic_write.write_bytes(path, save_tensors(contiguous, metadata={"progress": json.dumps(asdict(state))}))


def read_state(path: Path) -> TrainingState:
    """Read the state alone, without the tensors."""
    with open_plain_file(path, "checkpoint") as file:
        # Read without safetensors, which cannot open a path that is not UTF-8. The header is 8 bytes of length, then JSON.
        text = file.read(min(int.from_bytes(file.read(8), "little"), MAX_HEADER_BYTES))
    try:
        header = strict_json.loads(strict_json.loads(text)["__metadata__"]["progress"])
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{path}: damaged, or not a checkpoint ({weights.short_message(error)}){TRAIN_AGAIN}") from error
    if not isinstance(header, dict) or set(header) != {field.name for field in fields(TrainingState)}:
        raise BadInput(f"{path}: not a checkpoint of this version{TRAIN_AGAIN}")
    return config.fill(TrainingState, header, where=str(path), fault=BadInput)


def load(
    path: Path, student: nn.Module, optimizer: Optimizer | None, auxiliary: nn.Module | None = None
) -> tuple[TrainingState, dict[str, Tensor]]:
    """Restore student and optimizer; returns the state and the best weights so far."""
    state = read_state(path)
    try:
        tensors = weights.read_tensors(path)
        latest, best = (rename_weights(_select_prefix(tensors, name)) for name in ("student", "best"))
        _refuse_other_weights(latest, student)
        if best or (state.stage == FIT and state.best_step > 0):
            _refuse_other_weights(best, student)
        student.load_state_dict(latest, strict=False)
        if auxiliary is not None:
            auxiliary.load_state_dict(_select_prefix(tensors, "auxiliary"))
        if optimizer is not None:
            _restore(optimizer, _select_prefix(tensors, "optimizer"))
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise BadInput(
            f"{path}: damaged, or of a different student ({weights.short_message(error)}){TRAIN_AGAIN}"
        ) from error
    return state, best


def _restore(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = value
    _refuse_other_moments(state, optimizer)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _refuse_other_weights(state: dict[str, Tensor], student: nn.Module) -> None:
    """Refuse missing, unknown or misshapen weights: a student would keep the initial value of a missing one."""
    expected = trained_state(student)
    for key in sorted(expected.keys() ^ state.keys()):
        raise ValueError(f"{key}: {'missing' if key in expected else 'not a weight of this student'}")
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise ValueError(f"{key}: {tuple(value.shape)} instead of {tuple(expected[key].shape)}")


def _refuse_other_moments(state: dict[int, dict[str, Tensor]], optimizer: Optimizer) -> None:
    """Refuse moments that do not fit the parameters: the optimizer itself checks them only when it takes a step."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, moments in state.items():
        if not 0 <= index < len(parameters) or moments.keys() != ADAM_STATE:
            raise ValueError(f"optimizer/{index}: not the state of a parameter")
        step, shapes = moments["step"], {moments["exp_avg"].shape, moments["exp_avg_sq"].shape}
        is_count = step.dtype == torch.float32 and step.numel() == 1 and bool(step >= 1)
        if shapes != {parameters[index].shape} or not is_count:
            raise ValueError(f"optimizer/{index}: the state of another parameter")


def _select_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{prefix}/"): value for key, value in tensors.items() if key.startswith(f"{prefix}/")}
