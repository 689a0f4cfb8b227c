"""Artifacts of a tiny run with presentations of our choice, inspected by Python and by the C++ program."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from inspect_kd.datasets.alignment import Alignment, Method, choose_alignment
from inspect_kd.datasets.presentation import Presentation, Presentations
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.deploy import load_deployment
from inspect_kd.export.to_onnx import write_card
from inspect_kd.export.wire import card_text
from inspect_kd.inspector import Inspector
from inspect_kd.types import ImageU8, Inspection
from tests.cpp_program import assert_same, run_program
from tests.turned_parts import OUTLINE, SIDE, cluttered_scene, draw_part, pose_matrix

SIZE = 64
"""Side of the tiny artifact's input."""


def fit_alignment(images: list[ImageU8], method: Method) -> Alignment:
    alignment = choose_alignment(images, method).chosen.alignment
    assert alignment is not None
    return alignment


def draw_boards(count: int, seed: int) -> list[ImageU8]:
    rng = np.random.default_rng(seed)
    return [cluttered_scene(rng.uniform(-8, 8), *rng.uniform(-20, 20, 2), seed=seed + i) for i in range(count)]


def card_of(artifact: Path) -> ArtifactCard:
    return ArtifactCard.parse(card_text(artifact.read_bytes(), "artifact"), "artifact")


def inspector_of(artifact: Path, category: str | None = None) -> Inspector:
    """Python's inspector, without trying our own file in a child process first."""
    return Inspector(artifact, category=category, quarantine=False)


def with_presentations(run: Path, to: Path, *presentations: Presentation) -> Path:
    """Copy the run's artifact to `to` with these presentations of its categories; the last one applies to all further categories."""
    shutil.copyfile(run / "r.onnx", to)
    card = card_of(to)
    all_presentations = [*presentations, *[presentations[-1]] * len(card.categories)]
    by_category = dict(zip(card.categories, all_presentations, strict=False))
    write_card(to, replace(card, presentations=Presentations(by_category=by_category)))
    return to


def with_middle_thresholds(artifact: Path, category: str, scores: list[float]) -> None:
    """Move a category's thresholds between the scores, so that every decision occurs, and none is decided by the last digit."""
    card = card_of(artifact)
    ordered = sorted(scores)
    reinspect, reject = (
        (ordered[index - 1] + ordered[index]) / 2 for index in (int(share * len(ordered)) for share in (0.4, 0.7))
    )
    limits = card.calibration.limits[category]
    moved = replace(limits, thresholds=replace(limits.thresholds, reinspect=reinspect, reject=reject))
    calibration = replace(card.calibration, limits={**card.calibration.limits, category: moved})
    write_card(artifact, replace(card, calibration=calibration))


def save_images(folder: Path, images: list[ImageU8]) -> list[Path]:
    paths = [folder / f"{number:03}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image[:, :, ::-1])
    return paths


def compare(program: Path, artifact: Path, paths: list[Path], category: str | None = None) -> list[Inspection]:
    """Inspect the images with both programs, compare all fields and each pixel of the heatmaps, and return Python's inspections."""
    folder = paths[0].parent / "heatmaps"
    folder.mkdir(exist_ok=True)
    arguments = [] if category is None else ["--category", category]
    lines, code, stderr = run_program(program, artifact, *arguments, "--heatmaps", folder, *paths)
    assert code == 0, stderr
    inspections = list(inspector_of(artifact, category).each(paths))
    accept = load_deployment("onnx").accept
    for number, (line, inspection) in enumerate(zip(lines, inspections, strict=True)):
        assert isinstance(inspection, Inspection), inspection
        assert_same(line, inspection)
        heatmap = np.load(folder / f"{number}.npy")
        assert heatmap.shape == inspection.heatmap.shape
        assert np.abs(heatmap - inspection.heatmap).max() < accept.heatmap
    return [inspection for inspection in inspections if isinstance(inspection, Inspection)]


def faulty_parts() -> list[ImageU8]:
    """Draw broken parts, two parts in one image, a part that is cut off, no part, and parts with a mark."""
    broken = OUTLINE.copy()
    broken[:, 0] = np.minimum(broken[:, 0], 20)
    two = draw_part(pose_matrix(0, 150, 70))
    two[150:] = draw_part(pose_matrix(90, 150, 150))[60:210]
    two[180:270] = draw_part(pose_matrix(0, 150, 70))[20:110]
    images = [draw_part(pose_matrix(angle, 150, 150), outline=broken) for angle in range(0, 360, 45)]
    images += [two, draw_part(pose_matrix(0, 250, 150)), np.full((SIDE, SIDE, 3), 128, np.uint8)]
    for angle in range(0, 360, 20):
        matrix = pose_matrix(angle, 150, 150)
        marked = draw_part(matrix, seed=angle)
        x, y = matrix @ (-20.0, 5.0, 1.0)
        cv2.circle(marked, (round(x), round(y)), 6, (255, 255, 255), -1)
        images.append(marked)
    return images
