"""Frames and tiles of images of any size: blended seams, exact positions, unchanged scores."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from inspect_kd.config import load_recipe
from inspect_kd.datasets import open_dataset
from inspect_kd.datasets.batches import ImageStore
from inspect_kd.datasets.presentation import Presentations, predict_image, predict_images
from inspect_kd.datasets.view import View
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.evaluate import predict_samples
from inspect_kd.inspector import Inspector
from inspect_kd.overlay import find_regions
from inspect_kd.resize import resize
from inspect_kd.training import pipeline
from inspect_kd.types import BatchPrediction, Decision, ImageU8, Sample
from tests.builders import make_job
from tests.tiny import TINY


class Brightness:
    """A model whose heatmap is the image, so that the heatmap shows every shift."""

    size = 32

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict_batch(self, images_NHW3: npt.NDArray[np.uint8]) -> BatchPrediction:
        self.batches.append(len(images_NHW3))
        heat = images_NHW3[..., 0].astype(np.float32)
        return BatchPrediction(heat.max(axis=(1, 2)), heat)


def noise(height: int, width: int) -> ImageU8:
    return np.random.default_rng(height * width).integers(0, 200, (height, width, 3), dtype=np.uint8)


def test_whole_image_is_squashed_into_one_frame() -> None:
    image, model = noise(90, 50), Brightness()
    score, heatmap, *_ = predict_image(model, Presentations.plain(View(size=32)), image)
    assert model.batches == [1] and heatmap.shape == (32, 32)
    assert np.array_equal(heatmap, resize(image, 32, 32)[..., 0]) and score == heatmap.max()


@pytest.mark.parametrize(("height", "width"), [(90, 50), (32, 200), (33, 31), (20, 100), (7, 9), (257, 64)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_joined_tiles_restore_the_image(height: int, width: int, overlap: float) -> None:
    image = noise(height, width)
    score, heatmap, *_ = predict_image(
        Brightness(), Presentations.plain(View(size=32, tile=32, overlap=overlap)), image
    )
    assert heatmap.shape == (height, width)
    assert np.allclose(heatmap, image[..., 0], atol=1e-3)
    assert score == image[..., 0].max()


def test_tiles_overlap_and_cover_the_image() -> None:
    view = View(size=32, tile=64, overlap=0.25)
    frames = list(view.cut(view.scaled(noise(300, 500))))
    tops, lefts = view._starts(150), view._starts(250)
    assert len(frames) == len(tops) * len(lefts)
    assert (tops[0], tops[-1], lefts[-1]) == (0, 150 - 32, 250 - 32)
    assert max(np.diff(lefts)) <= 32 * 0.75 and max(np.diff(tops)) <= 32 * 0.75


def test_seams_are_blended() -> None:
    class Biased(Brightness):
        def predict_batch(self, images_NHW3: npt.NDArray[np.uint8]) -> BatchPrediction:
            # Each tile has its own level, the worst case for a seam.
            heat = np.zeros(images_NHW3.shape[:3], np.float32) + np.arange(len(images_NHW3))[:, None, None]
            return BatchPrediction(heat.max(axis=(1, 2)), heat)

    _, heatmap, *_ = predict_image(Biased(), Presentations.plain(View(size=32, tile=32, overlap=0.5)), noise(32, 64))
    steps = np.abs(np.diff(heatmap[16]))
    assert heatmap.max() > 1.9 and steps.max() < 0.15


def test_nan_score_of_one_tile_is_kept() -> None:
    predictions = [(score, np.zeros((32, 32), np.float32)) for score in (0.1, np.nan, 3.0)]
    score, _ = View(size=32, tile=32, overlap=0).join(predictions, (96, 32))
    assert np.isnan(score)


def test_whole_images_share_a_batch() -> None:
    images, model = [noise(40, 40 + i) for i in range(9)], Brightness()
    predictions = list(predict_images(model, Presentations.plain(View(size=32)), ((image, None) for image in images)))
    assert [prediction.score for prediction in predictions] == [
        predict_image(Brightness(), Presentations.plain(View(size=32)), image).score for image in images
    ]
    assert model.batches == [8, 1]
    with pytest.raises(UsageError, match="at least 16"):
        View(size=32, tile=15)


def test_thin_image_that_needs_gigabytes_in_tiles_is_refused(tmp_path: Path) -> None:
    """One row of a million pixels, a file of a few kilobytes, is padded to the height of a tile."""
    thin = np.zeros((1, 1_000_000), np.uint8)
    cv2.imwrite(str(tmp_path / "thin.bmp"), thin)
    view, reason = View(size=512, tile=512), r"1000000x1 pixels become 512 million at the tiles' scale"
    with pytest.raises(BadInput, match=reason):
        predict_image(Brightness(), Presentations.plain(view), np.repeat(thin[:, :, None], 3, axis=2))
    with pytest.raises(BadInput, match=rf"thin\.bmp: {reason}"):
        ImageStore([Sample(image=tmp_path / "thin.bmp", category="x")], Presentations.plain(view))[0]
    assert View(size=512).scaled(np.repeat(thin[:, :, None], 3, axis=2)).shape == (512, 512, 3)


def test_smallest_region_is_relative_to_the_model_input() -> None:
    heatmap = np.zeros((3072, 4096), np.float32)
    heatmap[100:115, 200:215] = 3
    assert find_regions(heatmap, 1.0, 4096, 3072) == ()
    found = find_regions(heatmap, 1.0, 4096, 3072, model_input_pixels=256**2)
    assert [(region.x, region.y, region.width) for region in found] == [(200, 100, 15)]


def test_nan_heatmap_ends_the_evaluation(tmp_path: Path) -> None:
    class Diverged(Brightness):
        def predict_batch(self, images_NHW3: npt.NDArray[np.uint8]) -> BatchPrediction:
            scores, heat = super().predict_batch(images_NHW3)
            return BatchPrediction(scores, heat * np.nan)

    cv2.imwrite(str(tmp_path / "a.png"), noise(40, 40))
    samples = [Sample(image=tmp_path / "a.png", category="x")]
    with pytest.raises(BadInput, match="not finite"):
        list(predict_samples(Diverged(), samples, Presentations.plain(View(size=32))))


def test_training_tiles_cover_the_image(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 90, 3)))
    store = ImageStore(
        [Sample(image=tmp_path / "a.png", category="x")], Presentations.plain(View(size=32, tile=32)), budget_mb=1
    )
    frames = [store.frame(0, np.random.default_rng(seed)) for seed in range(64)]
    assert {frame.shape for frame in frames} == {(32, 32, 3)}
    tops = {int(frame[0, 0, 0]) for frame in frames}
    assert min(tops) < 20 and max(tops) > 200 - 32 - 20
    assert np.array_equal(store.frame(0, np.random.default_rng(5)), store.frame(0, np.random.default_rng(5)))


# ── a 12-pixel defect on 4096x3072 pixels ────────────────────────────────────────────────────────────────────────────
WIDTH, HEIGHT, DEFECT_SIDE = 4096, 3072, 12
DEFECT_CENTRES = [(700, 900), (3300, 2000), (2050, 300)]


def draw_sheet(seed: int) -> ImageU8:
    """Draw rolled metal: streaks, soft shading, grain."""
    rng = np.random.default_rng(seed)
    streaks = cv2.resize(rng.normal(0, 6, (HEIGHT // 4, 8)).astype(np.float32), (WIDTH, HEIGHT))
    shade = cv2.resize(rng.normal(0, 12, (4, 5)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    grey = 140 + streaks + shade + rng.normal(0, 4, (HEIGHT, WIDTH)).astype(np.float32)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sheets") / "sheet"
    for folder, count in (("train/good", 9), ("test/good", 2), ("test/spot", len(DEFECT_CENTRES))):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            image = draw_sheet(1000 * len(folder) + number)
            if folder == "test/spot":
                x, y = DEFECT_CENTRES[number]
                image[y - DEFECT_SIDE // 2 : y + DEFECT_SIDE // 2, x - DEFECT_SIDE // 2 : x + DEFECT_SIDE // 2] = 60
            cv2.imwrite(str(root / folder / f"{number}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return root.parent


def train_inspector(sheets: Path, folder: Path, *changes: str) -> Inspector:
    """Train a small student with these settings; open its artifact."""
    settings = [*TINY, "fit.steps=60", "fit.evaluate_every=30", "fit.checkpoint_every=60", *changes]
    data = open_dataset(sheets)
    run = pipeline.train(make_job(load_recipe("embedded", settings), data, folder))
    return Inspector(run.artifact())


def finds_defect(inspector: Inspector, image: Path, centre: tuple[int, int]) -> bool:
    """True if the decision is not OK and the hottest region is at the defect."""
    inspection = inspector(image)
    if inspection.decision is Decision.OK or not inspection.regions:
        return False
    hottest = inspection.regions[0]
    return abs(hottest.peak_x - centre[0]) <= 24 and abs(hottest.peak_y - centre[1]) <= 24


def test_tiled_student_finds_tiny_defects_that_squashing_loses(sheets: Path, tmp_path: Path) -> None:
    tiled = train_inspector(sheets, tmp_path / "tiled", "data.size=128", "data.tile=256")
    squashed = train_inspector(sheets, tmp_path / "squashed", "data.size=256")
    spots = [(sheets / "sheet" / "test" / "spot" / f"{i}.jpg", centre) for i, centre in enumerate(DEFECT_CENTRES)]
    assert [finds_defect(tiled, *spot) for spot in spots] == [True] * len(DEFECT_CENTRES)
    assert [finds_defect(squashed, *spot) for spot in spots] == [False] * len(DEFECT_CENTRES)
    sound = [tiled(path) for path in sorted((sheets / "sheet" / "test" / "good").iterdir())]
    highest_score = max(inspection.score for inspection in sound)
    assert all(tiled(path).score > 1.2 * highest_score for path, _ in spots)
    assert sound[0].heatmap.shape == (HEIGHT // 2, WIDTH // 2)
    with pytest.raises(BadInput, match="array: 20000000x1 pixels become 1280 million"):
        tiled(np.zeros((1, 20_000_000), np.uint8))
