"""The report's pictures: choose instructive parts and draw them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from inspect_kd import overlay
from inspect_kd.calibrate import Calibration
from inspect_kd.datasets.image_writer import encode_image
from inspect_kd.datasets.images import read_image, read_mask
from inspect_kd.datasets.presentation import Presentations, predict_image
from inspect_kd.evaluate import Evaluation, Verdict
from inspect_kd.types import Decision, Heatmap, ImageU8, Model

SIDE = 256
"""Longer side of a picture, in pixels."""
MAX_PER_HEADING = 6
WEBP_QUALITY = 82


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One part: the image with the outline of its defect, and its heatmap, both as data URIs."""

    name: str
    category: str
    kind: str
    score: float
    decision: Decision
    image_uri: str
    heatmap_uri: str
    explanation: str | None = None
    """Why the part was not found in its image."""


def choose_examples(
    evaluation: Evaluation, calibration: Calibration, max_per_heading: int = MAX_PER_HEADING
) -> dict[str, list[Verdict]]:
    """Choose parts by heading, wrong decisions before right ones. Parts are sorted by score divided by their category's NG threshold.

    Parts that were not found have no score and headings of their own.
    """

    def severity(verdict: Verdict) -> float:
        category = verdict.sample.category if verdict.sample.category in calibration.limits else None
        return verdict.score / calibration.for_category(category).thresholds.reject

    found = [verdict for verdict in evaluation.verdicts if verdict.not_found is None]
    not_found = [verdict for verdict in evaluation.verdicts if verdict.not_found is not None]
    defects = sorted((v for v in found if v.defective), key=severity)
    sound = sorted((v for v in found if not v.defective), key=severity, reverse=True)
    chosen = {
        "Missed defects": [v for v in defects if v.decision is Decision.OK][:max_per_heading],
        "Sound parts that were stopped": [v for v in sound if v.decision is not Decision.OK][:max_per_heading],
        "Sound parts that were not found in their images": [v for v in not_found if not v.sample.defective][
            :max_per_heading
        ],
        "Weakest defects that were found": [v for v in defects if v.decision is not Decision.OK][:max_per_heading],
        "Clearest defects": _take_varied(defects[::-1], max_per_heading),
        "Defective parts that were not found in their images": _take_varied(
            [v for v in not_found if v.sample.defective], max_per_heading
        ),
        "Sound parts, the highest scores that passed": [v for v in sound if v.decision is Decision.OK][
            :max_per_heading
        ],
    }
    return {heading: verdicts for heading, verdicts in chosen.items() if verdicts}


def _take_varied(verdicts: Sequence[Verdict], count: int) -> list[Verdict]:
    """Take the first verdict of each category and kind, then the others in their order, `count` altogether."""
    represented: set[tuple[str, str]] = set()
    first_of_kind: list[Verdict] = []
    further: list[Verdict] = []
    for verdict in verdicts:
        key = (verdict.sample.category, verdict.sample.kind)
        (further if key in represented else first_of_kind).append(verdict)
        represented.add(key)
    return (first_of_kind + further)[:count]


def make_example(verdict: Verdict, model: Model, presentations: Presentations, root: Path, bits: int | None) -> Example:
    """Read the image, predict its heatmap again and draw both."""
    image = read_image(verdict.sample.image, bits=bits)
    predicted = predict_image(model, presentations, image, verdict.sample.category)
    small = overlay.thumbnail(image, SIDE)
    heated = _draw_heatmap(small, predicted.heatmap)
    if predicted.frame is not None:
        overlay.draw_frame(heated, predicted.frame, 1, small.shape[1] / image.shape[1])
    outlined = small
    if verdict.sample.mask is not None:
        outlined = overlay.outline(small, read_mask(verdict.sample.mask, size=(small.shape[1], small.shape[0])))
    path = verdict.sample.image
    return Example(
        name=str(path.relative_to(root) if path.is_relative_to(root) else path.name),
        category=verdict.sample.category,
        kind=verdict.sample.kind,
        score=verdict.score,
        decision=verdict.decision,
        image_uri=data_uri(outlined),
        heatmap_uri=data_uri(heated),
        explanation=verdict.not_found,
    )


def _draw_heatmap(image: ImageU8, heatmap: Heatmap) -> ImageU8:
    # The heatmap's colours stand out on a dimmed, greyed background.
    grey = image.mean(axis=2, keepdims=True)
    background = (0.75 * (0.65 * grey + 0.35 * image) + 30).clip(0, 255).astype(np.uint8)
    return overlay.blend_heatmap(background, heatmap, opacity=0.8)


def data_uri(image: ImageU8) -> str:
    """Encode an image as WebP in a data URI."""
    content = encode_image(image, ".webp", [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])
    return "data:image/webp;base64," + base64.b64encode(content).decode()
