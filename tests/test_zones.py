"""Zones of parts: their files, their weights, and predictions, in torch and ONNX, that ignored zones do not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch

from inspect_kd.calibrate import calibrate
from inspect_kd.datasets.alignment import choose_alignment
from inspect_kd.datasets.batches import ImageStore, SoundFrame, random_flip
from inspect_kd.datasets.presentation import Presentation, Presentations, predict_image
from inspect_kd.datasets.synthetic import add_defect
from inspect_kd.datasets.view import View
from inspect_kd.datasets.zones import Zone, Zones, average_places
from inspect_kd.datasets.zones_file import read_zones_file
from inspect_kd.errors import BadInput, InspectKDError
from inspect_kd.evaluate import SamplePrediction, measure, predict_samples
from inspect_kd.export import to_onnx
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.deploy import Conversion, VerificationData, load_deployment, make_artifact
from inspect_kd.export.graph import ArtifactGraph, TorchModel
from inspect_kd.export.options import RuntimeOptions
from inspect_kd.export.verify import Truth
from inspect_kd.inspector import Inspector
from inspect_kd.models.layers.discrepancy import top_mean, weighted_top_mean
from inspect_kd.models.rebuild import RebuildStudent, hard_mean, weighted_hard_mean
from inspect_kd.resize import RESIZE, resize_map
from inspect_kd.types import Sample
from tests.small_models import images, small
from tests.turned_parts import draw_part, pose_matrix
from tests.zoned_parts import FRAME, IGNORED, STRICT, picture, with_defect

SIZE = 64
VIEWS = [View(size=SIZE), View(size=SIZE, tile=48)]


def make_presentations(view: View, *zones: Zone) -> Presentations:
    drawn = Zones(frame=FRAME, zones=zones) if zones else None
    return Presentations(by_category={"a": Presentation(view=view, zones=drawn)})


@pytest.fixture(scope="module")
def student() -> RebuildStudent:
    student = small(head_width=8)
    student.fit_statistics([images(8, size=SIZE)])
    assert student.heads is not None
    student.heads.blend_weights.copy_(torch.tensor([[2.0, 1.5, 1.5], [2.0, 0.25, 0.25]]))
    return student.eval()


def export(
    student: RebuildStudent, path: Path, presentations: Presentations, deployment: str = "onnx"
) -> tuple[Conversion, TorchModel]:
    """Write an artifact that is verified on the frames of two pictures; return its conversion and the torch model."""
    graph = ArtifactGraph(student, scale=1.5)
    card = ArtifactCard(
        name="x",
        target="onnx",
        size=SIZE,
        resize=RESIZE,
        categories=("a",),
        calibration=calibrate({"a": list(np.linspace(0.1, 0.5, 30))}, reject_rate=0.05, reinspect_rate=0.1),
        presentations=None if presentations.common_view else presentations,
    )
    side = student.weights_side(SIZE) if presentations.has_zones else None
    frames = [frame for seed in (1, 2) for frame in presentations.prepare(picture(seed), "a").frames(side)]
    truths = [Truth(number % 2 == 0, "a") for number in range(len(frames))]
    batch: Any = (np.stack([frame.image for frame in frames]), truths)
    if side is not None:
        batch += (np.stack([frame.weights for frame in frames])[:, None],)
    verification = VerificationData(real=[batch])
    conversion = make_artifact(
        graph, path, card=card, deployment=load_deployment(deployment), verification=verification
    )
    return conversion, TorchModel(graph, SIZE)


@pytest.mark.parametrize("view", VIEWS, ids=["whole", "tiles"])
def test_defect_in_an_ignored_zone_changes_no_bit_of_the_prediction(
    student: RebuildStudent, view: View, tmp_path: Path
) -> None:
    presentations = make_presentations(view, IGNORED, STRICT)
    conversion, torch_model = export(student, tmp_path / "x.onnx", presentations)
    assert not conversion.exceeded_limits
    inspector = Inspector(tmp_path / "x.onnx", category="a", quarantine=False)
    sound, ignored_defect = picture(), with_defect(picture(), 40, 45)
    inspected_defect = with_defect(picture(), 120, 90)
    for model in (torch_model, inspector):
        expected, ignored, inspected = (
            predict_image(model, presentations, image, "a") for image in (sound, ignored_defect, inspected_defect)
        )
        assert ignored.score == expected.score and np.array_equal(ignored.heatmap, expected.heatmap)
        assert inspected.score > expected.score and not np.array_equal(inspected.heatmap, expected.heatmap)
    assert inspector(sound).decision == inspector(ignored_defect).decision
    assert inspector(sound).score == inspector(ignored_defect).score
    # Without zones the same defect changes the heatmap.
    without = Presentations.plain(view)
    heatmaps = [predict_image(torch_model, without, image).heatmap for image in (sound, ignored_defect)]
    assert not np.array_equal(*heatmaps)


def test_tolerance_of_one_half_doubles_the_heat_inside_its_zone_only(student: RebuildStudent) -> None:
    model, view = TorchModel(ArtifactGraph(student, 1.0), SIZE), View(size=SIZE)
    _, usual, *_ = predict_image(model, Presentations.plain(view), picture())
    _, strict, *_ = predict_image(model, make_presentations(view, STRICT), picture(), "a")
    # Both regions keep more than one cell of the grid away from the zone's border.
    inside, outside = (slice(12, 50), slice(42, 54)), (slice(None), slice(0, 30))
    np.testing.assert_allclose(strict[inside], 2 * usual[inside], rtol=1e-5)
    np.testing.assert_allclose(strict[outside], usual[outside], rtol=1e-5)


def test_ignored_places_have_no_heat_and_no_share_in_the_score(student: RebuildStudent) -> None:
    model, view = TorchModel(ArtifactGraph(student, 1.0), SIZE), View(size=SIZE)
    _, heatmap, *_ = predict_image(model, make_presentations(view, IGNORED), picture(), "a")
    assert not heatmap[20:36, 12:24].any() and heatmap[50:, 40:].min() > 0
    map_1144 = torch.arange(16.0).reshape(1, 1, 4, 4)
    weights = torch.ones(1, 1, 4, 4)
    weights[..., 2:, :] = 0
    assert weighted_top_mean(map_1144, weights, 0.25).item() == pytest.approx((7 + 6) / 2)
    assert weighted_top_mean(map_1144, torch.ones_like(weights), 0.25) == top_mean(map_1144, 0.25)
    assert weighted_top_mean(map_1144, torch.zeros_like(weights), 0.25).item() == 0


def test_only_an_artifact_with_zones_has_a_second_input(student: RebuildStudent, tmp_path: Path) -> None:
    export(student, tmp_path / "zones.onnx", make_presentations(VIEWS[0], IGNORED))
    export(student, tmp_path / "plain.onnx", make_presentations(VIEWS[0]))
    with_zones, plain = (onnx.load(str(tmp_path / f"{name}.onnx")).graph.input for name in ("zones", "plain"))
    assert [value.name for value in plain] == ["images"]
    assert [value.name for value in with_zones] == ["images", "weights"]
    dims = with_zones[1].type.tensor_type.shape.dim
    assert dims[0].dim_param and [dim.dim_value for dim in dims[1:]] == [1, SIZE // 4, SIZE // 4]
    frames = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    ones = np.ones((3, 1, SIZE // 4, SIZE // 4), np.float32)
    runtime = to_onnx.Runtime((tmp_path / "zones.onnx").read_bytes(), "x")
    bound = to_onnx.Runtime((tmp_path / "zones.onnx").read_bytes(), "x", RuntimeOptions(bind=True))
    expected = runtime.predict_batch(frames)
    for prediction in (runtime.predict_batch(frames, ones), bound.predict_batch(frames, ones)):
        np.testing.assert_array_equal(prediction.heatmaps_NHW, expected.heatmaps_NHW)
    with pytest.raises(
        BadInput, match=r"^x: zones' weights of float32 \(3, 1, 8, 8\); it takes float32 \(3, 1, 16, 16\)$"
    ):
        runtime.predict_batch(frames, ones[..., :8, :8])
    with pytest.raises(BadInput, match="it takes no zones' weights"):
        to_onnx.Runtime((tmp_path / "plain.onnx").read_bytes(), "x").predict_batch(frames, ones)


def test_card_and_graph_must_agree_on_zones(student: RebuildStudent, tmp_path: Path) -> None:
    export(student, tmp_path / "zones.onnx", make_presentations(VIEWS[0], IGNORED))
    export(student, tmp_path / "plain.onnx", make_presentations(VIEWS[0]))
    cards = {name: to_onnx.Runtime((tmp_path / f"{name}.onnx").read_bytes(), "x").card for name in ("zones", "plain")}
    to_onnx.write_card(tmp_path / "zones.onnx", cards["plain"])
    to_onnx.write_card(tmp_path / "plain.onnx", cards["zones"])
    for name in ("zones", "plain"):
        with pytest.raises(BadInput, match="its inputs and outputs are not those of an inspect-kd artifact of size 64"):
            to_onnx.Runtime((tmp_path / f"{name}.onnx").read_bytes(), "x")


def test_weights_of_a_side_that_does_not_divide_the_inputs_are_refused() -> None:
    def check(side: int) -> int | None:
        inputs = [
            ("images", "tensor(uint8)", ["batch", 64, 64, 3]),
            ("weights", "tensor(float)", ["batch", 1, side, side]),
        ]
        return to_onnx.check_inputs_and_outputs(inputs, {"heatmap", "score"}, 64, "x", has_zones=True)

    assert check(16) == 16
    for side in (0, 15, 63, 128):
        with pytest.raises(BadInput, match="not those of an inspect-kd artifact of size 64 with zones"):
            check(side)


@pytest.mark.parametrize("size", [(80, 90), (80, 20), (20, 90), (53, 37), (10, 10)])
def test_map_is_resized_like_an_image(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random((37, 53), dtype=np.float32)
    values[:, :20] = 0
    shrunk = cv2.resize(values, (min(53, size[0]), min(37, size[1])), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(shrunk, size, interpolation=cv2.INTER_LINEAR)
    resized = resize_map(values, *size)
    np.testing.assert_allclose(resized, expected, atol=1e-4)
    np.testing.assert_array_equal(resized == 0, expected == 0)


@pytest.mark.parametrize("deployment", ["openvino", "tensorrt_fp16"])
def test_openvino_and_tensorrt_artifacts_support_zones(
    student: RebuildStudent, deployment: str, tmp_path: Path
) -> None:
    if deployment == "openvino":
        pytest.importorskip("openvino")
    conversion, _ = export(student, tmp_path / "x.onnx", make_presentations(VIEWS[1], IGNORED, STRICT), deployment)
    assert conversion.parity.real_images > 2 and conversion.parity.flips == 0
    # OpenVINO computes in fp32 and agrees up to rounding; half precision differs more on an untrained student.
    assert conversion.parity.score < (1e-4 if deployment == "openvino" else 0.02)


def test_zones_of_an_aligned_part_turn_with_it(student: RebuildStudent) -> None:
    sound = [draw_part(pose_matrix(angle, 150, 150), seed=seed) for seed, angle in enumerate(range(0, 300, 30))]
    alignment = choose_alignment(sound, "silhouette").chosen.alignment
    assert alignment is not None
    width, height = alignment.frame
    left_third = ((0, 0), (width // 3, 0), (width // 3, height), (0, height))
    drawn = Zones(frame=alignment.frame, zones=(Zone("end", left_third),))
    presentations = Presentations(
        by_category={"a": Presentation(view=View(size=SIZE), alignment=alignment, zones=drawn)}
    )
    prepared = presentations.prepare(sound[2], "a")
    ignored = prepared.picture[:, : width // 3].reshape(-1, 3)
    assert (ignored == np.array(drawn.fill)).all()
    prediction = predict_image(TorchModel(ArtifactGraph(student, 1.0), SIZE), presentations, sound[2], "a")
    assert prediction.ignored is not None
    full_mask = np.ones(sound[2].shape[:2], bool)
    inspected = prediction.ignored.cut(full_mask)
    # The zone lies turned in the image: its centre is ignored, the centre of the other end is not.
    assert prepared.matrix is not None
    inverse = cv2.invertAffineTransform(prepared.matrix)
    for x, is_inspected in ((width / 6, False), (5 * width / 6, True)):
        column, row = (inverse @ (x, height / 2, 1)).round().astype(int)
        assert inspected[row, column] == is_inspected


def test_masks_are_cut_and_a_defect_in_an_ignored_zone_counts_as_sound(tmp_path: Path) -> None:
    def prediction(x: int, y: int) -> SamplePrediction:
        mask = np.zeros(FRAME[::-1], np.uint8)
        mask[y : y + 20, x : x + 20] = 255
        path = tmp_path / f"{x}.png"
        cv2.imwrite(str(path), mask)
        sample = Sample(image=path, category="a", kind="scratch", mask=path)
        places = make_presentations(VIEWS[0], IGNORED).prepare(picture(), "a").ignored
        return SamplePrediction(sample=sample, score=1.0, heatmap=np.ones(FRAME[::-1], np.float32), ignored=places)

    ignored, half_ignored, inspected = prediction(30, 40), prediction(61, 40), prediction(120, 40)
    assert ignored.is_defect_ignored() and ignored.truth() is None
    truth = half_ignored.truth()
    assert truth is not None and not half_ignored.is_defect_ignored() and truth.sum() == 20 * 10
    assert inspected.truth() is not None and not inspected.is_defect_ignored()
    assert measure([ignored, inspected])["a"]["image_auroc"].value == 0.5


def test_synthetic_defects_are_drawn_only_on_inspected_pixels() -> None:
    image, inspected = picture(frame=(96, 96)), np.zeros((96, 96), bool)
    inspected[60:, :40] = True
    for seed in range(40):
        defect = add_defect(image, np.random.default_rng(seed), donor=picture(9, (96, 96)), inspected=inspected)
        assert np.array_equal(defect.image[~inspected], image[~inspected])
        assert not defect.mask[~inspected].any() and defect.mask.any()
    nowhere = add_defect(image, np.random.default_rng(0), inspected=np.zeros((96, 96), bool))
    assert not nowhere.mask.any() and np.array_equal(nowhere.image, image)


def test_weights_are_cut_and_flipped_like_the_picture(tmp_path: Path) -> None:
    files = []
    for seed in range(2):
        files.append(tmp_path / f"{seed}.png")
        cv2.imwrite(str(files[-1]), picture(seed))
    samples = [Sample(image=file, category="a") for file in files]
    blue = Zones(frame=FRAME, zones=(IGNORED,), fill=(0, 0, 255))
    for view in VIEWS:
        store = ImageStore(samples, Presentations(by_category={"a": Presentation(view=view, zones=blue)}), budget_mb=8)
        for seed in range(10):
            rng = np.random.default_rng(seed)
            frame = random_flip(store.sound_frame(seed % 2, rng), "both", rng)
            assert frame.weights_HW is not None
            ignored = frame.weights_HW == 0
            assert (frame.image[ignored] == (0, 0, 255)).all()
            assert not (frame.image[frame.weights_HW == 1] == (0, 0, 255)).all(axis=1).any()


def test_ignored_places_have_no_part_in_loss_and_statistics() -> None:
    torch.manual_seed(0)
    distance, weights = torch.rand(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
    assert weighted_hard_mean(distance, weights, 1.0).item() == pytest.approx(hard_mean(distance, 1.0).item(), rel=1e-5)
    weights[..., :4] = 0
    changed = distance.clone()
    changed[..., :4] = 100
    assert weighted_hard_mean(changed, weights, 1.0) == weighted_hard_mean(distance, weights, 1.0)
    batch, pixels = images(6, size=SIZE), torch.ones(6, 1, SIZE, SIZE)
    pixels[..., :32] = 0
    plain, zoned = small(), small()
    plain.fit_statistics([batch], [torch.ones_like(pixels)])
    zoned.fit_statistics([batch], [pixels])
    reference = small()
    reference.fit_statistics([batch])
    for key, value in reference.feature_norm.state_dict().items():
        assert torch.allclose(plain.feature_norm.state_dict()[key], value, rtol=1e-4)
        if key.startswith("spread"):
            assert not torch.equal(zoned.feature_norm.state_dict()[key], value)


def test_sound_parts_are_rejected_no_more_often_than_promised_with_zones_and_tiles(student: RebuildStudent) -> None:
    """The calibration is repeated on random draws of scores that were computed with an ignored zone, a tolerance and tiles."""
    presentations = make_presentations(View(size=SIZE, tile=80), IGNORED, STRICT)
    model = TorchModel(ArtifactGraph(student, 1.0), SIZE)
    scores = np.array([predict_image(model, presentations, picture(seed), "a").score for seed in range(240)])
    rng, rate, rejected = np.random.default_rng(0), 0.1, []
    for _ in range(400):
        order = rng.permutation(scores)
        limits = calibrate({"a": list(order[:40])}, reject_rate=rate, reinspect_rate=2 * rate)
        threshold = limits.for_category("a").thresholds.reject * limits.scale
        rejected.append(float((order[40:] > threshold).mean()))
    assert len(set(scores)) == len(scores)
    assert 0.02 < np.mean(rejected) <= rate


def read_zones(tmp_path: Path, text: str, categories: tuple[str, ...] = ("a",)) -> Zones | None:
    path = tmp_path / "zones.yaml"
    path.write_text(text)
    return read_zones_file(path, categories).for_category("a", {FRAME}, [picture(0), picture(1)], aligned=False)


def zone_text(**changes: object) -> str:
    zone = {"name": "label", "ignore": True, "polygon": [[10, 20], [100, 20], [100, 80]]} | changes
    return json.dumps({"zones": [{key: value for key, value in zone.items() if value is not None}]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (zone_text(polygon=[[10, 20], [200, 20], [90, 80]]), "zone 'label': the point [200, 20] lies outside the frame of 160x120 pixels"),
        (zone_text(polygon=[[-1, 20], [20, 20], [9, 80]]), "zone 'label': the point [-1, 20] lies outside the frame of 160x120 pixels"),
        (zone_text(polygon=[[0, 0], [50, 50], [50, 0], [0, 50]]), "zone 'label': its outline crosses itself"),
        (zone_text(polygon=[[0, 0], [50, 50]]), "zone 'label': a polygon of 2 points; it needs 3 to 500"),
        (zone_text(polygon=None), "zone 'label': a polygon of 0 points"),
        (zone_text(polygon=[[0, 0], [50, 50], [20, 20]]), "zone 'label': its polygon has no area"),
        (zone_text(polygon=[[0, 0], [50, "x"], [20, 20]]), "zone 'label': the point [50, 'x'] is not [x, y]"),
        (zone_text(polygon=[[0, 0], [160, 0], [160, 120], [0, 120]]), "the zones ignore the whole frame: 0.0 % of it would be inspected"),
        (zone_text(colour="red"), "zone 'label': unknown key 'colour'"),
        (zone_text(ignore=None), "zone 'label': give it either `ignore: true` or a `tolerance`"),
        (zone_text(tolerance=0.5), "zone 'label': give it either `ignore: true` or a `tolerance`"),
        (zone_text(ignore=None, tolerance=0), "zone 'label': tolerance 0 is not a number from 0.05 to 4"),
        (zone_text(ignore=None, tolerance=4.1), "zone 'label': tolerance 4.1 is not a number from 0.05 to 4"),
        (zone_text(ignore=None, tolerance="half"), "zone 'label': tolerance 'half' is not a number from 0.05 to 4"),
        (zone_text(ignore=1), "zone 'label': ignore is 1; write true or false"),
        (zone_text(name=None), "a zone is called None; give each zone a `name`"),
        (zone_text(category="b"), "zone 'label': no category 'b' in the data; there are: a"),
        ('{"zones": []}', "no zones; expected `zones:`"),
        ('{"zone": [1]}', "unknown key 'zone'; expected `zones:`"),
        ('{"zones": [7]}', "a zone is 7; expected `zones:`"),
        (
            json.dumps({"zones": json.loads(zone_text())["zones"] * 2}),
            "two zones are called 'label'; give each its own name",
        ),
    ],
)  # fmt: skip
def test_bad_zones_are_refused_in_one_clear_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InspectKDError) as caught:
        read_zones(tmp_path, text)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "zones.yaml"))


def test_label_picture_of_another_size_or_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.png"
    cv2.imwrite(str(path), np.zeros((50, 60), np.uint8))
    with pytest.raises(BadInput, match=r"labels.png: a label picture of 60x50 pixels; the images have 160x120$"):
        read_zones_file(path, ["a"]).for_category("a", {FRAME}, [picture()], aligned=False)
    cv2.imwrite(str(path), np.zeros((120, 160, 3), np.uint8))
    with pytest.raises(BadInput, match=r"labels.png: a label picture of mode RGB; save it in 8-bit grey$"):
        read_zones_file(path, ["a"])
    labels = np.zeros((120, 160), np.uint8)
    labels[:10] = 3
    cv2.imwrite(str(path), labels)
    with pytest.raises(BadInput, match="the label picture has the value 3"):
        read_zones_file(path, ["a"]).for_category("a", {FRAME}, [picture()], aligned=False)


def test_zones_on_images_of_different_sizes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "zones.yaml").write_text(zone_text())
    file = read_zones_file(tmp_path / "zones.yaml", ["a"])
    with pytest.raises(BadInput, match=r"the images of 'a' have different sizes \(100x100, 160x120\)"):
        file.for_category("a", {FRAME, (100, 100)}, [], aligned=False)
    with pytest.raises(BadInput, match=r"^p.png: 100x100 pixels; its category's zones were drawn on 160x120$"):
        make_presentations(VIEWS[0], IGNORED).check_size(picture(0, (100, 100)), "p.png", "a")


def test_label_picture_and_polygons_are_drawn_alike(tmp_path: Path) -> None:
    labels = np.zeros(FRAME[::-1], np.uint8)
    labels[30:81, 20:71] = 255
    labels[10:111, 90:151] = 50
    cv2.imwrite(str(tmp_path / "labels.png"), labels)
    from_picture = read_zones_file(tmp_path / "labels.png", ["a"]).for_category(
        "a", {FRAME}, [picture()], aligned=False
    )
    polygons = Zones(frame=FRAME, zones=(IGNORED, STRICT))
    assert from_picture is not None
    np.testing.assert_array_equal(from_picture.weights(), polygons.weights())


def test_zones_belong_to_their_category(tmp_path: Path) -> None:
    text = zone_text(category="b")
    assert read_zones(tmp_path, text, ("a", "b")) is None
    zones = read_zones(tmp_path, zone_text(category="a"), ("a", "b"))
    assert zones is not None and [zone.name for zone in zones.zones] == ["label"]


def test_where_zones_overlap_ignoring_wins_then_the_smaller_tolerance() -> None:
    square = ((0, 0), (50, 0), (50, 50), (0, 50))
    rules = [Zone("lenient", square, 2.0), Zone("strict", square, 0.5), Zone("hole", square[:3])]
    for order in (rules, rules[::-1]):
        weights = Zones(frame=FRAME, zones=tuple(order)).weights()
        assert weights[20, 10] == 2 and weights[10, 40] == 0 and weights[100, 100] == 1


def test_ignored_places_get_the_colour_beside_them() -> None:
    image = np.full((120, 160, 3), (10, 200, 30), np.uint8)
    image[30:81, 20:71] = 255
    assert Zones(frame=FRAME, zones=(IGNORED,)).fit_fill([image]).fill == (10, 200, 30)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_colour_of_ignored_places_is_the_median_of_all_pictures(count: int) -> None:
    pictures = [picture(seed) for seed in range(count)]
    zones = Zones(frame=FRAME, zones=(IGNORED,))
    grown = cv2.dilate(zones.ignored.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    beside = np.concatenate([each[grown & ~zones.ignored] for each in pictures])
    assert zones.fit_fill(iter(pictures)).fill == tuple(int(value) for value in np.median(beside, axis=0))


def test_zones_are_restored_from_json_and_invalid_json_is_refused() -> None:
    labels = np.zeros(FRAME[::-1], np.uint8)
    labels[:20] = 255
    for zones in (Zones(frame=FRAME, zones=(IGNORED, STRICT), fill=(1, 2, 3)), Zones(frame=FRAME, labels=labels)):
        content = json.loads(json.dumps(zones.to_json()))
        stored = Zones.from_json(content)
        np.testing.assert_array_equal(stored.weights(), zones.weights())
        assert stored.fill == zones.fill and stored.frame == FRAME
        for key, value in (
            ("frame", [2**15, 2**15]),
            ("frame", [True, 1]),
            ("frame", "big"),
            ("fill", [0, 0, 256]),
            ("zones", 7),
            ("zones", [7]),
            ("zones", [{"name": "x\n", "ignore": True, "polygon": []}]),
            ("labels", "%%%"),
            ("labels", "aGVsbG8="),
            ("more", 1),
        ):
            with pytest.raises(BadInput):
                Zones.from_json(content | {key: value})
    with pytest.raises(BadInput):
        Zones.from_json(None)


def test_presentation_without_zones_is_stored_without_that_key() -> None:
    assert Presentation(view=VIEWS[0]).to_json().keys() == {"tile", "overlap", "alignment", "reasons"}


def test_weight_of_a_grid_cell_is_the_mean_of_its_pixels() -> None:
    weights = np.zeros((4, 4), np.float32)
    weights[0, :2] = 1
    np.testing.assert_array_equal(average_places(weights, 2), [[0.5, 0], [0, 0]])
    assert SoundFrame(picture(), None).inspected is None


def test_categories_with_and_without_zones_are_predicted_together(student: RebuildStudent, tmp_path: Path) -> None:
    files = []
    for seed in range(4):
        files.append(tmp_path / f"{seed}.png")
        cv2.imwrite(str(files[-1]), picture(seed))
    samples = [Sample(image=file, category="ab"[seed % 2]) for seed, file in enumerate(files)]
    presentations = Presentations(
        by_category={
            "a": Presentation(view=VIEWS[0], zones=Zones(frame=FRAME, zones=(IGNORED,))),
            "b": Presentation(view=VIEWS[0]),
        }
    )
    model = TorchModel(ArtifactGraph(student, 1.0), SIZE)
    predictions = list(predict_samples(model, samples, presentations))
    assert [prediction.ignored is not None for prediction in predictions] == [True, False, True, False]
    plain = list(predict_samples(model, samples[1::2], Presentations.plain(VIEWS[0])))
    for mixed, alone in zip(predictions[1::2], plain, strict=True):
        assert mixed.score == pytest.approx(alone.score, rel=1e-5)
