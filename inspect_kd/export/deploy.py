"""Make an artifact by a deployment recipe (`export/<name>.yaml`).

The artifact is exported, verified against torch, and kept only if it passes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from inspect_kd import atomic_write, config, registry, zoo
from inspect_kd.calibrate import POOLED, Calibration
from inspect_kd.errors import printable
from inspect_kd.export import to_onnx
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.graph import ArtifactGraph, TorchModel
from inspect_kd.export.half import to_half_precision
from inspect_kd.export.quantise import QuantisationResult, QuantiseSettings, quantise
from inspect_kd.export.verify import (
    ARTIFICIAL_NAMES,
    LabelledImages,
    Parity,
    WeightedImages,
    artificial_images,
    compare,
    find_exceeded_limits,
    worst_images,
)
from inspect_kd.stopwatch import time_in_turns
from inspect_kd.strict_model import StrictModel
from inspect_kd.types import Model, NoProgress, Progress
from inspect_kd.work_folder import work_folder

ROUNDS = 15
"""Rounds in which the artifact and plain fp32 are timed in turns; at most four runs each per round."""


class Accept(StrictModel):
    """Largest accepted differences from torch; if one is exceeded, no artifact is written."""

    score: float | None = Field(None, ge=0)
    """Of any score, on the calibrated scale; None: no limit."""
    heatmap: float | None = Field(None, ge=0)
    """Of any pixel of a heatmap, on the calibrated scale; None: no limit."""
    auroc: float = Field(ge=0)
    """Change of image AUROC, of all parts together and of each category."""
    flips: float = Field(ge=0, le=1)
    """Share of the real images whose decision may change."""
    guard: float = Field(0, ge=0)
    """Changed decisions are not counted where the score is at most this far from a threshold."""


class Deployment(StrictModel):
    """A deployment recipe: the target and precision of an artifact, and the differences from torch that are accepted."""

    name: config.Name
    about: str = ""
    target: str
    """File `inspect_kd/export/to_<target>.py`."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    devices: tuple[str, ...] = ("cpu",)
    """Devices that the artifact is meant for; `export --to all-cpu` makes all deployments that name the cpu."""
    opset: int = Field(20, ge=20)
    batches: tuple[int, ...] = Field((1, 2, 8), min_length=1)
    """Batch sizes that are compared with torch."""
    proof: int = Field(200, ge=1)
    """Largest number of real images that are compared with torch."""
    quantise: QuantiseSettings = QuantiseSettings()
    accept: Accept


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationData:
    """Images for the comparison with torch, and for quantisation; the latter are loaded on demand."""

    real: LabelledImages
    """Real images at the artifact's size."""
    sound: Callable[[], WeightedImages] | None = None
    """Loads the sound training images from which quantisation estimates its ranges."""
    checked: Callable[[], WeightedImages] | None = None
    """Loads held-out sound images and their copies with synthetic defects; quantisation measures its change on them."""
    recalibrate: Callable[[Model], Calibration] | None = None
    """Derives thresholds from the artifact's own scores."""
    progress: Progress = dataclasses.field(default_factory=NoProgress)


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """Result of an export: parity, sizes, times, and the limits that were exceeded."""

    deployment: Deployment
    parity: Parity
    exceeded_limits: tuple[str, ...]
    """Limits that were exceeded, in words; if any, no artifact was written."""
    file_bytes: int
    plain_bytes: int
    """Size of the same student as plain fp32 ONNX."""
    times: dict[str, dict[str, float]]
    """Times for one image of `this` artifact and of `fp32` in ONNX Runtime, on one thread; empty where both are the same."""
    quantised: QuantisationResult | None
    """None for other precisions than int8."""
    before: Calibration
    """The student's calibration."""
    after: Calibration
    """The artifact's calibration; it differs if `recalibrate` derived other thresholds."""

    def describe_exceeded_limits(self) -> str:
        """Describe in one line the exceeded limits and the worst images; empty if no limit was exceeded."""
        if not self.exceeded_limits:
            return ""
        worst = "; ".join(
            f"{printable(image.name)}: heatmap {image.heatmap:.3g} at row {image.row}, column {image.column}, score {image.score:.3g}"
            for image in worst_images(self.parity, self.deployment.accept.model_dump())
        )
        return f"{'; '.join(self.exceeded_limits)}, on {self.parity.images} images. The largest differences: {worst}"

    def to_json(self) -> dict[str, Any]:
        """Content of the conversion report."""
        return {
            "deployment": self.deployment.name,
            "target": self.deployment.target,
            "precision": self.deployment.precision,
            "accept": self.deployment.accept.model_dump(),
            "missed": list(self.exceeded_limits),
            "worst_images": [
                dataclasses.asdict(image) for image in worst_images(self.parity, self.deployment.accept.model_dump())
            ],
            "parity": self.parity.to_json(),
            "file_bytes": self.file_bytes,
            "plain_bytes": self.plain_bytes,
            "times": self.times,
            "quantised": dataclasses.asdict(self.quantised) if self.quantised else None,
            "thresholds": {
                name: {"before": dataclasses.asdict(limits.thresholds), "after": _thresholds(self.after, name)}
                for name, limits in self.before.limits.items()
            },
        }


def load_deployment(name: str) -> Deployment:
    path = zoo.find("export", name)
    return config.fill(Deployment, config.read_yaml(path), where=str(path))


def deployments_for(device: str) -> list[str]:
    """List the names of the shipped deployments for a device."""
    return [name for name in zoo.names("export") if device in load_deployment(name).devices]


def make_artifact(
    graph: ArtifactGraph, to: Path, *, card: ArtifactCard, deployment: Deployment, verification: VerificationData
) -> Conversion:
    """Write the artifact to `to`, unless a limit is exceeded."""
    target: Any = registry.load("export", f"to_{deployment.target}")
    # A private folder: in a shared one another user could place a link under the name that is written.
    with work_folder(to.parent, "export") as folder:
        partial = folder / f"artifact{target.SUFFIX}"
        verification.progress.phase("export", 1)
        plain, quantised = _write(graph, partial, target, card, deployment, verification)
        # A target that this machine cannot run may have its own check of the file.
        getattr(target, "check", lambda file: None)(partial)
        candidate = _verifying_runtime(target)(partial.read_bytes(), to.name)
        before = card.calibration
        if deployment.precision != "fp32" and verification.recalibrate is not None:
            card = dataclasses.replace(card, calibration=verification.recalibrate(candidate))
        parity = compare(
            TorchModel(graph, card.size),
            candidate,
            verification.real,
            batches=deployment.batches,
            thresholds=before.for_category(None).thresholds,
            candidate_thresholds=card.calibration.for_category(None).thresholds,
            guard=deployment.accept.guard,
        )
        conversion = Conversion(
            deployment=deployment,
            parity=parity,
            exceeded_limits=tuple(find_exceeded_limits(parity, deployment.accept.model_dump())),
            file_bytes=partial.stat().st_size,
            plain_bytes=len(plain),
            times={} if plain == partial.read_bytes() and target is to_onnx else _time_against_fp32(plain, candidate),
            quantised=quantised,
            before=before,
            after=card.calibration,
        )
        if not conversion.exceeded_limits:
            target.write_card(partial, dataclasses.replace(card, parity=parity.to_json()))
            # Run the final file once more: its card was changed after the comparison.
            _verifying_runtime(target)(partial.read_bytes(), to.name).predict_batch(
                np.zeros((1, card.size, card.size, 3), np.uint8)
            )
            atomic_write.move_into_place(partial, to)
    return conversion


def _write(
    graph: ArtifactGraph,
    partial: Path,
    target: Any,
    card: ArtifactCard,
    deployment: Deployment,
    verification: VerificationData,
) -> tuple[bytes, QuantisationResult | None]:
    """Write the file in the deployment's precision; return the student as plain fp32 ONNX, and the result of quantisation."""
    if deployment.precision == "fp16":
        to_onnx.export(graph, partial, card=card, opset=deployment.opset)
        plain = partial.read_bytes()
        target.export(to_half_precision(graph), partial, card=card, opset=deployment.opset)
        verification.progress.advance()
        return plain, None
    target.export(graph, partial, card=card, opset=deployment.opset)
    verification.progress.advance()
    plain = partial.read_bytes()
    if deployment.precision == "fp32":
        return plain, None
    assert verification.sound is not None and verification.checked is not None, "int8 needs images to measure on"
    quantised = quantise(
        partial, verification.sound(), verification.checked(), deployment.quantise, verification.progress
    )
    target.write_card(partial, card)
    return plain, quantised


def _verifying_runtime(target: Any) -> Any:
    """Return the runtime class that verifies the file: the target's own, or a substitute if that needs other hardware."""
    return getattr(target, "VerificationRuntime", target.Runtime)


def _time_against_fp32(plain: bytes, candidate: Model) -> dict[str, dict[str, float]]:
    noise = artificial_images(candidate.size)[ARTIFICIAL_NAMES.index("noise")][None]
    fp32 = to_onnx.Runtime(plain, "fp32")
    runs = {"this": lambda: candidate.predict_batch(noise), "fp32": lambda: fp32.predict_batch(noise)}
    return {name: times.summarise() for name, times in time_in_turns(runs, ROUNDS, max_runs=4).items()}


def _thresholds(calibration: Calibration, name: str) -> dict[str, float]:
    return dataclasses.asdict(calibration.for_category(None if name == POOLED else name).thresholds)
