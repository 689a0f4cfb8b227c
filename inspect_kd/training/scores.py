"""Score held-out parts with a model that has no artifact yet."""

from __future__ import annotations

import math

from inspect_kd.config import Recipe
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.evaluate import predict_samples
from inspect_kd.export.graph import ArtifactGraph, TorchModel
from inspect_kd.models.base import Student, Teacher
from inspect_kd.types import Model, Progress, Split


def build_torch_model(model: Student | Teacher, recipe: Recipe, *, scale: float = 1.0) -> TorchModel:
    """The graph of the model's later artifact, run by torch. `scale` is the calibration's divisor of scores."""
    return TorchModel(ArtifactGraph(model, scale), recipe.data.size)


def calibration_scores(
    model: Model, data: DataSet, presentations: Presentations, progress: Progress, *, bits: int | None
) -> dict[str, list[float]]:
    """Scores of the calibration split by category; infinite for parts that were not found."""
    samples = data.select(Split.CALIBRATION)
    progress.phase("calibrate", len(samples))
    scores: dict[str, list[float]] = {}
    for prediction in predict_samples(model, samples, presentations, bits=bits):
        scores.setdefault(prediction.sample.category, []).append(math.inf if prediction.not_found else prediction.score)
        progress.advance()
    return scores
