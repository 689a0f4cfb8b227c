"""Make an artifact by a deployment recipe (`export/<name>.yaml`): export, prove, and only then give it its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from inspect_kd import atomic_write, config, registry, zoo
from inspect_kd.calibrate import Calibration
from inspect_kd.errors import printable
from inspect_kd.export import to_onnx
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.graph import ArtifactGraph, TorchModel
from inspect_kd.export.half import in_half
from inspect_kd.export.quantise import Quantise, Quantised, quantise
from inspect_kd.export.verify import Images, Parity, Real, artificial, compare, missed, worst_images
from inspect_kd.stopwatch import take_turns
from inspect_kd.types import Model, NoProgress, Progress
from inspect_kd.work_folder import work_folder

ROUNDS = 15
"""Turns of the artifact and of plain fp32 side by side; at most four runs each a turn."""


class Accept(config.Strict):
    """Limits against torch; what is missed leaves no artifact."""

    score: float | None = Field(None, ge=0)
    heatmap: float | None = Field(None, ge=0)
    auroc: float = Field(ge=0)
    """Of all parts together and of each category."""
    flips: float = Field(ge=0, le=1)
    """Share of the real parts whose decision may change."""
    guard: float = Field(0, ge=0)
    """A part this near to a threshold may be decided either way."""


class Deployment(config.Strict):
    name: config.Name
    about: str = ""
    target: str
    """File `inspect_kd/export/to_<target>.py`."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    devices: tuple[str, ...] = ("cpu",)
    """Where it is meant to run; `export --to all-cpu` makes all that name the cpu."""
    opset: int = Field(20, ge=20)
    batches: tuple[int, ...] = Field((1, 2, 8), min_length=1)
    proof: int = Field(200, ge=1)
    """Real images at most on which it is held against torch."""
    quantise: Quantise = Quantise()
    accept: Accept


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """What an artifact is proved with, and what a change of precision takes; the latter is asked for when it is needed."""

    real: Real
    sound: Callable[[], Images] | None = None
    """Frames of sound parts of training."""
    checked: Callable[[], Images] | None = None
    """Frames of held-out sound parts and their damaged twins."""
    recalibrate: Callable[[Model], Calibration] | None = None
    progress: Progress = dataclasses.field(default_factory=NoProgress)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What became of a student on its way into a file."""

    deployment: Deployment
    parity: Parity
    missed: tuple[str, ...]
    """Limits that it did not hold; then there is no artifact."""
    file_bytes: int
    plain_bytes: int
    """Of the same student as plain fp32 ONNX."""
    times: dict[str, dict[str, float]]
    """Of one image: `this`, and `fp32` in ONNX Runtime, in turns on one thread. Empty where this is that."""
    quantised: Quantised | None
    before: Calibration
    after: Calibration

    def complaint(self) -> str:
        """Which limits were missed, and on which images, in one line; empty where none was."""
        if not self.missed:
            return ""
        images = "; ".join(
            f"{printable(each.name)}: heatmap {each.heatmap:.3g} at row {each.row}, column {each.column}, score {each.score:.3g}"
            for each in worst_images(self.parity, self.deployment.accept.model_dump())
        )
        return f"{'; '.join(self.missed)}, on {self.parity.images} images. The largest differences: {images}"

    def to_json(self) -> dict[str, Any]:
        """For reports and programs."""
        return {
            "deployment": self.deployment.name,
            "target": self.deployment.target,
            "precision": self.deployment.precision,
            "accept": self.deployment.accept.model_dump(),
            "missed": list(self.missed),
            "worst_images": [
                dataclasses.asdict(each) for each in worst_images(self.parity, self.deployment.accept.model_dump())
            ],
            "parity": self.parity.to_json(),
            "file_bytes": self.file_bytes,
            "plain_bytes": self.plain_bytes,
            "times": self.times,
            "quantised": dataclasses.asdict(self.quantised) if self.quantised else None,
            "thresholds": {
                name: {"before": dataclasses.asdict(limits.thresholds), "after": _limits(self.after, name)}
                for name, limits in self.before.limits.items()
            },
        }


def load_deployment(name: str) -> Deployment:
    path = zoo.find("export", name)
    return config.fill(Deployment, config.read_yaml(path), where=str(path))


def deployments_for(device: str) -> list[str]:
    """Of the shipped ones, those that are meant to run there."""
    return [name for name in zoo.names("export") if device in load_deployment(name).devices]


def make_artifact(
    graph: ArtifactGraph, to: Path, *, card: ArtifactCard, deployment: Deployment, material: Material
) -> Conversion:
    """Write `to`, or leave nothing where a limit was missed."""
    target: Any = registry.load("export", f"to_{deployment.target}")
    # A folder of its own: nobody else can have planted anything under the name that is written there.
    with work_folder(to.parent, "export") as folder:
        partial = folder / f"artifact{target.SUFFIX}"
        material.progress.phase("export", 1)
        plain, quantised = _write(graph, partial, target, card, deployment, material)
        # A target may know of its own what it takes, where no machine of its kind is at hand.
        getattr(target, "check", lambda file: None)(partial)
        candidate = _prover(target)(partial.read_bytes(), to.name)
        before = card.calibration
        if deployment.precision != "fp32" and material.recalibrate is not None:
            card = dataclasses.replace(card, calibration=material.recalibrate(candidate))
        parity = compare(
            TorchModel(graph, card.size),
            candidate,
            material.real,
            batches=deployment.batches,
            thresholds=before.limits_for(None).thresholds,
            own=card.calibration.limits_for(None).thresholds,
            guard=deployment.accept.guard,
        )
        told = Conversion(
            deployment=deployment,
            parity=parity,
            missed=tuple(missed(parity, deployment.accept.model_dump())),
            file_bytes=partial.stat().st_size,
            plain_bytes=len(plain),
            times={} if plain == partial.read_bytes() and target is to_onnx else _side_by_side(plain, candidate),
            quantised=quantised,
            before=before,
            after=card.calibration,
        )
        if not told.missed:
            target.reseal(partial, dataclasses.replace(card, parity=parity.to_json()))
            # The file that is about to get its name is opened once more: the card was changed after the proof.
            _prover(target)(partial.read_bytes(), to.name).predict_batch(
                np.zeros((1, card.size, card.size, 3), np.uint8)
            )
            atomic_write.move_into_place(partial, to)
    return told


def _write(
    graph: ArtifactGraph, partial: Path, target: Any, card: ArtifactCard, deployment: Deployment, material: Material
) -> tuple[bytes, Quantised | None]:
    """The file in its precision; returns the same as plain fp32, too."""
    if deployment.precision == "fp16":
        to_onnx.export(graph, partial, card=card, opset=deployment.opset)
        plain = partial.read_bytes()
        target.export(in_half(graph), partial, card=card, opset=deployment.opset)
        material.progress.advance()
        return plain, None
    target.export(graph, partial, card=card, opset=deployment.opset)
    material.progress.advance()
    plain = partial.read_bytes()
    if deployment.precision == "fp32":
        return plain, None
    assert material.sound is not None and material.checked is not None, "int8 takes parts to measure on"
    quantised = quantise(partial, material.sound(), material.checked(), deployment.quantise, material.progress)
    target.reseal(partial, card)
    return plain, quantised


def _prover(target: Any) -> Any:
    """What runs the file for its proof: its own runtime, unless that needs a machine that is not this one."""
    return getattr(target, "Prover", target.Runtime)


def _side_by_side(plain: bytes, candidate: Model) -> dict[str, dict[str, float]]:
    noise = artificial(candidate.size)[2][None]
    fp32 = to_onnx.Runtime(plain, "fp32")
    runs = {"this": lambda: candidate.predict_batch(noise), "fp32": lambda: fp32.predict_batch(noise)}
    return {name: times.figures() for name, times in take_turns(runs, ROUNDS, most=4).items()}


def _limits(calibration: Calibration, name: str) -> dict[str, float]:
    return dataclasses.asdict(calibration.limits_for(None if name == "*" else name).thresholds)
