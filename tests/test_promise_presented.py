"""The false-reject promise holds for parts that are aligned, cut into tiles, weighed by zones, and now and then not found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from inspect_kd.calibrate import calibrate
from inspect_kd.datasets.alignment import choose_alignment
from inspect_kd.datasets.presentation import Presentation, Presentations, predict_images
from inspect_kd.datasets.view import View
from inspect_kd.datasets.zones import Zone, Zones
from inspect_kd.export.graph import ArtifactGraph, TorchModel
from inspect_kd.types import NOT_FOUND_SCORE, ImageU8
from tests.small_models import images, small
from tests.turned_parts import random_parts

SIZE = 64
REJECT_RATE = 0.1
CALIBRATION_PARTS, TRIALS = 40, 400
MISSED_SHARE = 0.04
"""Share of the sound parts that are not found, so that this uses up a part of the promised rate."""


def zoned_tiles_of_aligned_parts(sound: list[ImageU8], others: list[ImageU8]) -> Presentation:
    """A quarter of the frame is ignored, a quarter tolerates half the heat; a few of the other sound parts are not found."""
    alignment = choose_alignment(sound, "silhouette").chosen.alignment
    assert alignment is not None
    width, height = alignment.frame
    ignored = Zone("label", ((0, 0), (width / 2, 0), (width / 2, height / 2), (0, height / 2)))
    strict = Zone("seal", ((width / 2, 0), (width, 0), (width, height / 2), (width / 2, height / 2)), 0.5)
    poses = [alignment.locate(image).pose for image in others]
    min_quality = float(np.quantile([pose.quality for pose in poses if pose is not None], MISSED_SHARE))
    return Presentation(
        view=View(size=SIZE, tile=80),
        alignment=replace(alignment, min_quality=min_quality),
        zones=Zones(frame=alignment.frame, zones=(ignored, strict)),
    )


def test_sound_parts_are_rejected_no_more_often_than_promised_with_alignment_tiles_and_zones() -> None:
    parts = [image for _, image in random_parts(260)]
    presentations = Presentations(by_category={"a": zoned_tiles_of_aligned_parts(parts[:20], parts[20:])})
    torch.manual_seed(0)
    student = small(head_width=8)
    student.fit_statistics([images(8, size=SIZE)])
    model = TorchModel(ArtifactGraph(student.eval(), 1.0), SIZE)
    scores = np.array(
        [each.score for each in predict_images(model, presentations, [(part, "a") for part in parts[20:]])]
    )
    missed = float((scores == NOT_FOUND_SCORE).mean())
    assert 0 < missed < REJECT_RATE, "some sound parts are not found, fewer than may be rejected"

    rng, rejected = np.random.default_rng(0), []
    for _ in range(TRIALS):
        order = rng.permutation(scores)
        calibration = list(order[:CALIBRATION_PARTS])
        limits = calibrate({"a": calibration}, reject_rate=REJECT_RATE, reinspect_rate=2 * REJECT_RATE)
        threshold = limits.for_category("a").thresholds.reject * limits.scale
        rejected.append(float((order[CALIBRATION_PARTS:] > threshold).mean()))
    # The mean over many draws, and not far below: the bound is no looser than its steps of one part in 41.
    assert REJECT_RATE - 2 / (CALIBRATION_PARTS + 1) < np.mean(rejected) <= REJECT_RATE
