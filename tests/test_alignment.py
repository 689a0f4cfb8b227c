"""Parts at any angle are found, moved into the reference frame, and refused where they are not like the reference."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import pytest

from inspect_kd.config import Data
from inspect_kd.datasets.alignment import Alignment, choose_alignment, cut_frame, heatmap_in_image
from inspect_kd.datasets.alignment.pose import chain
from inspect_kd.datasets.fit_presentation import fit_presentations
from inspect_kd.datasets.presentation import Presentation, Presentations
from inspect_kd.datasets.view import View
from inspect_kd.errors import BadInput
from inspect_kd.evaluate import predict_samples
from inspect_kd.types import ImageU8, Model, NoProgress, Sample
from tests.turned_parts import OUTLINE, SIDE, cluttered_scene, draw_part, pose_matrix, random_parts


@pytest.fixture(scope="module")
def alignment() -> Alignment:
    choice = choose_alignment([image for _, image in random_parts(20)], "auto")
    assert choice.chosen.method == "silhouette", choice.describe()
    assert choice.chosen.alignment is not None
    return choice.chosen.alignment


def test_turned_parts_come_to_lie_in_one_pose(alignment: Alignment) -> None:
    """Every point of the part is mapped to the same place of the frame, to within a pixel, at any angle."""
    points = np.vstack([OUTLINE.T, np.ones(len(OUTLINE))])
    places = []
    for matrix, image in random_parts(30, seed=100):
        found = alignment.locate(image)
        assert found.fault is None and found.pose is not None
        places.append(chain(matrix, found.pose.matrix) @ points)
    spread = np.abs(np.array(places) - np.median(places, axis=0)).max()
    assert spread < 1.2
    width, height = alignment.frame
    corners = np.median(places, axis=0)
    assert (corners >= 0).all() and (corners[0] < width).all() and (corners[1] < height).all(), (
        "the part fills the frame"
    )
    shorter, longer = sorted((width, height))
    assert longer < 1.25 * np.ptp(OUTLINE[:, 0]) and shorter < 1.35 * np.ptp(OUTLINE[:, 1])


@pytest.mark.parametrize("angle", [0, 40, 133, 250])
def test_part_with_a_broken_off_end_is_not_found(alignment: Alignment, angle: int) -> None:
    broken = OUTLINE.copy()
    broken[:, 0] = np.minimum(broken[:, 0], 20)
    found = alignment.locate(draw_part(pose_matrix(angle, 150, 150), outline=broken))
    assert found.fault is not None and "agrees with the reference by" in found.fault.reason


def test_two_parts_are_refused_with_their_count(alignment: Alignment) -> None:
    image = draw_part(pose_matrix(0, 150, 70))
    image[150:] = draw_part(pose_matrix(90, 150, 150))[60:210]
    image[180:270] = draw_part(pose_matrix(0, 150, 70))[20:110]
    fault = alignment.locate(image).fault
    assert fault is not None and fault.reason == "2 parts in one picture"


def test_part_cut_off_by_the_border_is_refused(alignment: Alignment) -> None:
    fault = alignment.locate(draw_part(pose_matrix(0, 250, 150))).fault
    assert fault is not None and fault.reason == "the part is cut off by the picture's border"


def test_empty_picture_is_refused(alignment: Alignment) -> None:
    found = alignment.locate(np.full((SIDE, SIDE, 3), 128, np.uint8))
    assert found.pose is None and found.fault is not None and found.fault.reason == "no part on the background"


def test_heatmap_returns_to_its_place_in_the_image(alignment: Alignment) -> None:
    """A mark on the turned part shows in the frame; its heat, mapped back, peaks at the mark."""
    matrix = pose_matrix(73, 140, 160)
    image = draw_part(matrix)
    x, y = matrix @ (-20.0, 5.0, 1.0)
    cv2.circle(image, (round(x), round(y)), 4, (255, 255, 255), -1)
    pose = alignment.locate(image).pose
    assert pose is not None
    frame = cut_frame(image, pose.matrix, alignment.frame)
    sound = cut_frame(draw_part(matrix), pose.matrix, alignment.frame)
    difference = np.abs(frame.astype(np.float32) - sound).mean(axis=2)
    heat = heatmap_in_image(
        cv2.resize(difference, (64, 64), interpolation=cv2.INTER_AREA), pose.matrix, alignment.frame, (SIDE, SIDE)
    )
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    scale = SIDE / heat.shape[0]
    assert math.hypot((column + 0.5) * scale - x, (row + 0.5) * scale - y) < 5
    assert heat[0, 0] == 0, "nothing is inspected outside the frame"


def test_round_parts_are_centred_and_not_turned() -> None:
    def washer(x: int, y: int) -> ImageU8:
        image = np.full((200, 200, 3), 220, np.uint8)
        cv2.circle(image, (x, y), 50, (60, 60, 60), -1, cv2.LINE_AA)
        cv2.circle(image, (x, y), 20, (220, 220, 220), -1, cv2.LINE_AA)
        return image

    places = [(70, 80), (100, 100), (130, 90), (90, 140), (110, 120)]
    choice = choose_alignment([washer(*place) for place in places], "auto")
    assert choice.chosen.method == "silhouette"
    assert choice.chosen.alignment is not None
    for place in places:
        pose = choice.chosen.alignment.locate(washer(*place)).pose
        assert pose is not None
        np.testing.assert_allclose(pose.matrix[:, :2], np.eye(2))
        np.testing.assert_allclose(pose.matrix @ (*place, 1), np.array(choice.chosen.alignment.frame) / 2, atol=1.5)


def test_parts_that_always_lie_in_one_pose_are_not_aligned() -> None:
    images = [draw_part(pose_matrix(0, 150, 150), seed=seed) for seed in range(10)]
    choice = choose_alignment(images, "auto")
    assert choice.chosen.method == "none" and choice.chosen.alignment is None


def test_textures_are_not_aligned() -> None:
    rng = np.random.default_rng(0)
    images = [
        cv2.resize(rng.integers(60, 180, (60, 60, 3)).astype(np.uint8), (240, 240), interpolation=cv2.INTER_CUBIC)
        for _ in range(10)
    ]
    assert choose_alignment(images, "auto").chosen.method == "none"


def test_boards_are_aligned_by_template() -> None:
    rng = np.random.default_rng(3)
    images = [cluttered_scene(rng.uniform(-8, 8), *rng.uniform(-20, 20, 2), seed=i) for i in range(12)]
    choice = choose_alignment(images, "auto")
    assert choice.chosen.method == "template", choice.describe()
    template = choice.chosen.alignment
    assert template is not None
    frames = [
        cut_frame(image, pose.matrix, template.frame) for image in images if (pose := template.locate(image).pose)
    ]
    middle = np.stack(frames)[:, 120:280, 120:280].astype(np.float32)
    assert len(frames) == 12 and np.abs(middle - np.median(middle, axis=0)).mean() < 12
    assert template.locate(np.full((400, 400, 3), 90, np.uint8)).fault is not None


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 400, 3), (31, 31, 3)])
def test_picture_too_small_for_corners_is_not_found(shape: tuple[int, int, int]) -> None:
    template = choose_alignment([cluttered_scene(0, 0, 0, seed=i) for i in range(3)], "template").chosen.alignment
    assert template is not None
    fault = template.locate(np.full(shape, 90, np.uint8)).fault
    assert fault is not None and fault.reason == "no match with the reference picture"


def test_method_that_finds_no_part_is_refused_with_the_reason() -> None:
    images = [np.full((100, 100, 3), 50, np.uint8) for _ in range(5)]
    with pytest.raises(
        BadInput, match=r"^data.align: silhouette finds no part in 5 of 5 sound images: no part on the background$"
    ):
        choose_alignment(images, "silhouette")


@pytest.mark.parametrize("kind", ["photo", "noise"])
def test_images_larger_than_opencv_can_warp_are_not_aligned(kind: str) -> None:
    """A side of an image, as a line-scan camera takes it, may be longer than 32766 pixels."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (400, 60, 3), np.uint8) for _ in range(4)]
    images[2] = (
        rng.integers(0, 255, (33_000, 40, 3), np.uint8) if kind == "noise" else np.zeros((33_000, 40, 3), np.uint8)
    )
    choice = choose_alignment(images, "auto")
    assert choice.chosen.method == "none"
    assert "silhouette takes images of at most 32766 pixels a side, and one has 40x33000: crop" in choice.describe()
    for method in ("silhouette", "template"):
        with pytest.raises(
            BadInput, match=rf"^data.align: {method} takes images of at most 32766 pixels a side.*data.align=none$"
        ):
            choose_alignment(images, method)


def test_parts_whose_frame_would_be_too_large_are_not_aligned_by_silhouette(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inspect_kd.datasets.alignment.alignment.MAX_PIXELS", 10_000)
    images = [image for _, image in random_parts(6)]
    choice = choose_alignment(images, "auto")
    assert choice.chosen.method != "silhouette" and "silhouette needs a frame of " in choice.describe()
    with pytest.raises(
        BadInput, match=r"^data.align: silhouette needs a frame of \d+x\d+ pixels around the parts, and the limit is"
    ):
        choose_alignment(images, "silhouette")


def test_parts_that_are_a_line_when_shrunk_have_no_silhouette() -> None:
    images = []
    for left in (1000, 2000, 4000):
        image = np.full((9, 9000, 3), 40, np.uint8)
        image[:, left : left + 3000] = 220
        images.append(image)
    assert choose_alignment(images, "auto").chosen.method == "none"
    with pytest.raises(
        BadInput, match="silhouette finds no part in 3 of 3 sound images: the part is a line of single pixels"
    ):
        choose_alignment(images, "silhouette")


@pytest.mark.parametrize("method", ["silhouette", "template", "none"])
def test_memory_does_not_grow_with_the_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Literal["silhouette", "template", "none"]
) -> None:
    samples = []
    for number, (_, image) in enumerate(random_parts(10)):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), cv2.resize(image, (1200, 1200)), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        samples.append(Sample(image=path, category="a"))
    (tmp_path / "zones.yaml").write_text(
        '{"zones": [{"name": "label", "ignore": true, "polygon": [[10, 20], [100, 20], [100, 80]]}]}'
    )

    def fit(kept_bytes: int) -> tuple[str, int]:
        monkeypatch.setattr("inspect_kd.datasets.cached_images.KEPT_BYTES", kept_bytes)
        settings = Data(align=method, zones=str(tmp_path / "zones.yaml"))
        tracemalloc.start()
        presentations = fit_presentations({"a": samples}, settings, NoProgress(), whole_images=False)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return json.dumps(presentations.to_json()), peak

    few, small_peak = fit(0)
    many, large_peak = fit(2**30)
    image_bytes = 3 * 1200 * 1200
    assert few == many, "the choice is the same"
    assert small_peak < large_peak - 6 * image_bytes


def test_image_too_large_for_its_categorys_alignment_is_refused_by_its_name(
    alignment: Alignment, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "scan.png"), np.zeros((33_000, 40), np.uint8))
    sample = Sample(image=tmp_path / "scan.png", category="a")
    presentations = Presentations(by_category={"a": Presentation(view=View(size=64), alignment=alignment)})
    with pytest.raises(
        BadInput, match=r"scan.png: 40x33000 pixels; a side of an image with a part to align has at most 32766"
    ):
        next(predict_samples(cast(Model, None), [sample], presentations))


def test_stored_alignment_gives_the_same_poses(alignment: Alignment) -> None:
    stored = Alignment.from_json(json.loads(json.dumps(alignment.to_json())))
    for _, image in random_parts(5, seed=50):
        one, other = alignment.locate(image), stored.locate(image)
        assert one.pose is not None and other.pose is not None
        assert (one.pose.matrix == other.pose.matrix).all() and one.pose.quality == other.pose.quality


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "magic"}, "unknown to this program"),
        ({"frame": [0, 100]}, "impossible frame"),
        ({"frame": [30000, 30000]}, "impossible frame"),
        ({"frame": [True, 5]}, "impossible frame"),
        ({"min_quality": math.nan}, "is no number"),
        ({"min_quality": -1}, "is no number"),
        ({"anchor": [1e9, 0]}, "is no number"),
        ({"grey": "!"}, "not in base 64"),
        ({"grey": "AAAA"}, "no grey PNG"),
        ({"grey": "A" * 2**21}, "the limit is"),
        ({"mask": 5}, "damaged"),
        ({"extra": 1}, "unknown fields: extra"),
    ],
)
def test_damaged_alignment_is_refused(alignment: Alignment, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Alignment.from_json({**alignment.to_json(), **change})
