"""An export writes one file with the same predictions as the student, or no file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from inspect_kd.calibrate import calibrate
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.export.card import KEY, ArtifactCard
from inspect_kd.export.deploy import VerificationData, load_deployment, make_artifact
from inspect_kd.export.graph import ArtifactGraph, TorchModel
from inspect_kd.export.options import RuntimeOptions
from inspect_kd.export.to_onnx import Runtime, open_session, written_opset
from inspect_kd.export.verify import LabelledImages, Truth, artificial_images, compare, worst_images
from inspect_kd.models.base import ModelOutput
from inspect_kd.models.encoders import build_encoder
from inspect_kd.models.rebuild import RebuildStudent
from inspect_kd.models.students import omni_ad
from inspect_kd.resize import RESIZE
from inspect_kd.types import Thresholds
from tests.small_models import gated, small, small_ras

SIZE = 64


@pytest.fixture(scope="module")
def graph() -> ArtifactGraph:
    torch.manual_seed(0)
    settings = omni_ad.Config(encoder="embedded", dims=(24, 16, 16), heads=2, neck=16, bottleneck=1)
    student = omni_ad.build(settings, build_encoder("embedded"))
    student.fit_statistics([torch.rand(8, 3, SIZE, SIZE) * 255])
    return ArtifactGraph(student.eval(), scale=1.5)


@pytest.fixture(scope="module")
def real_images() -> LabelledImages:
    rng = np.random.default_rng(0)
    truth = [Truth(defective, "a") for defective in (False, True, False, True)]
    return [(rng.integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8), truth) for _ in range(4)]


def make_card(**changes: object) -> ArtifactCard:
    calibration = calibrate({"a": list(np.linspace(0.1, 0.5, 30))}, reject_rate=0.05, reinspect_rate=0.1)
    fields = {
        "name": "x",
        "target": "onnx",
        "size": SIZE,
        "resize": RESIZE,
        "categories": ("a",),
        "calibration": calibration,
    }
    return ArtifactCard(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def artifact(graph: ArtifactGraph, real_images: LabelledImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "x.onnx"
    make_artifact(
        graph,
        path,
        card=make_card(),
        deployment=load_deployment("onnx"),
        verification=VerificationData(real=real_images),
    )
    return path


@pytest.mark.parametrize("build", [small, small_ras, gated])
def test_every_student_exports_with_the_same_predictions(
    build: Callable[..., RebuildStudent], real_images: LabelledImages, tmp_path: Path
) -> None:
    student = build(head_width=8)
    student.fit_statistics([torch.rand(8, 3, SIZE, SIZE) * 255])
    assert student.heads is not None
    student.heads.blend_weights.copy_(torch.tensor([[2.0, 1.5, 1.5], [2.0, 0.25, 0.25]]))
    graph = ArtifactGraph(student.eval(), scale=1.5)
    make_artifact(
        graph,
        tmp_path / "x.onnx",
        card=make_card(),
        deployment=load_deployment("onnx"),
        verification=VerificationData(real=real_images),
    )
    parity = json.loads(onnx.load(str(tmp_path / "x.onnx")).metadata_props[0].value)["parity"]
    assert parity["flips"] == 0 and parity["real_images"] == 16
    images = real_images[0][0]
    heatmap, score = open_session((tmp_path / "x.onnx").read_bytes(), "x", RuntimeOptions(allow_cpu=True)).run(
        None, {"images": images}
    )
    with torch.no_grad():
        expected = graph(torch.from_numpy(images))
    assert np.allclose(heatmap, expected[0].numpy(), atol=1e-4) and np.allclose(score, expected[1].numpy(), atol=1e-4)


def test_artifact_is_one_file_with_its_card(artifact: Path) -> None:
    assert [path.name for path in artifact.parent.iterdir()] == ["x.onnx"]
    model = onnx.load(str(artifact))
    assert [entry.key for entry in model.metadata_props] == [KEY]
    assert written_opset(artifact) == 20
    content = json.loads(model.metadata_props[0].value)
    assert content["parity"]["flips"] == 0 and content["parity"]["real_images"] == 16
    assert content["parity"]["batches"] == [1, 2, 8]
    assert {i.name: i.type.tensor_type.elem_type for i in model.graph.input} == {"images": onnx.TensorProto.UINT8}
    assert "Resize" in {node.op_type for node in model.graph.node}
    assert not any(
        attribute.name == "antialias" and attribute.i for node in model.graph.node for attribute in node.attribute
    )


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_any_batch_size_agrees_with_torch(artifact: Path, graph: ArtifactGraph, batch: int) -> None:
    images = np.random.default_rng(batch).integers(0, 256, (batch, SIZE, SIZE, 3), dtype=np.uint8)
    onnx_output = Runtime(artifact.read_bytes(), "x").predict_batch(images)
    torch_output = TorchModel(graph, SIZE).predict_batch(images)
    assert onnx_output.heatmaps_NHW.shape == (batch, SIZE, SIZE) and onnx_output.scores_N.shape == (batch,)
    assert np.abs(onnx_output.heatmaps_NHW - torch_output.heatmaps_NHW).max() < 1e-4
    assert np.abs(onnx_output.scores_N - torch_output.scores_N).max() < 1e-4


def test_different_images_get_different_scores(artifact: Path) -> None:
    black, _, noise, checker = artificial_images(SIZE)
    runtime = Runtime(artifact.read_bytes(), "x")
    scores = [float(runtime.predict_batch(image[None]).scores_N[0]) for image in (black, noise, checker)]
    assert len(set(scores)) == 3


def test_empty_batch_is_refused(artifact: Path) -> None:
    with pytest.raises(BadInput, match="empty batch"):
        Runtime(artifact.read_bytes(), "x").predict_batch(np.zeros((0, SIZE, SIZE, 3), np.uint8))


class ShiftableStudent(nn.Module):
    """A student whose scores can be shifted, so that its export differs from it."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.register_buffer("shift", torch.zeros(1))

    def forward(self, images_B3HW: Tensor) -> ModelOutput:
        output = self.student(images_B3HW)
        return ModelOutput(output.score_B + self.shift, output.heatmap_B1HW)


def test_no_artifact_is_written_where_predictions_differ(
    graph: ArtifactGraph, real_images: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shiftable = ShiftableStudent(graph.student)
    shiftable_graph = ArtifactGraph(shiftable, graph.scale)
    from inspect_kd.export import to_onnx

    export = to_onnx.export

    def export_shifted(*arguments: object, **named: object) -> None:
        shiftable.shift.fill_(0.5)
        export(*arguments, **named)  # type: ignore[arg-type]
        shiftable.shift.fill_(0.0)

    monkeypatch.setattr(to_onnx, "export", export_shifted)
    conversion = make_artifact(
        shiftable_graph,
        tmp_path / "y.onnx",
        card=make_card(),
        deployment=load_deployment("onnx"),
        verification=VerificationData(real=real_images),
    )
    assert any(limit.startswith("score 0.333 (limit 0.0001)") for limit in conversion.exceeded_limits)
    assert list(tmp_path.iterdir()) == []


class LookupModel:
    """Looks up the score of an image by its first byte; the heatmap has that value everywhere."""

    size = 8

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def predict_batch(self, images: np.ndarray) -> object:
        from inspect_kd.types import BatchPrediction

        values = np.array([self.scores[int(image[0, 0, 0])] for image in images], np.float32)
        return BatchPrediction(values, np.repeat(values[:, None, None], 8, axis=1).repeat(8, axis=2))


def test_worst_images_are_named_with_row_and_column() -> None:
    images = np.stack([np.full((8, 8, 3), i, np.uint8) for i in range(4)])
    thresholds = make_card().calibration.for_category(None).thresholds
    truths = [Truth(False, "a", f"good/{number}.png") for number in range(4)]
    reference, candidate = [0.1] * 256, [0.1, 0.4, 0.1, 0.2] + [0.1] * 252
    parity = compare(
        LookupModel(reference),
        LookupModel(candidate),
        [(images, truths)],
        batches=(1, 3),
        thresholds=thresholds,
        guard=0,
    )
    worst = worst_images(parity, {"score": 1e-3, "heatmap": 1e-3})
    assert [image.name for image in worst] == ["good/1.png", "good/3.png"]
    assert worst[0].heatmap == pytest.approx(0.3) and (worst[0].row, worst[0].column) == (0, 0)


FOUR_IMAGES = np.stack([np.full((8, 8, 3), i, np.uint8) for i in range(4)])
FOUR_LABELLED = [(FOUR_IMAGES, [Truth(False, "a"), Truth(True, "a"), Truth(False, "b"), Truth(True, "b")])]
THRESHOLDS = make_card().calibration.for_category(None).thresholds


def four_scores(*scores: float) -> LookupModel:
    """A model with these scores for the four images, and 0.1 for any other."""
    return LookupModel([*scores, *[0.1] * 252])


REFERENCE = four_scores(0.1, THRESHOLDS.reject + 0.5, 0.2, THRESHOLDS.reject + 0.4)
CANDIDATE = four_scores(0.1, 0.1, 0.2, THRESHOLDS.reject + 0.4)


def test_flips_and_auroc_changes_are_counted() -> None:
    parity = compare(REFERENCE, CANDIDATE, FOUR_LABELLED, batches=(1, 3), thresholds=THRESHOLDS, guard=1e-4)
    assert parity.flips == 1 and parity.real_images == 4
    assert parity.flips_by_category == {"a": 1}
    # Pooled: one defect scores as low as a sound part; in category a both have the same score.
    assert parity.aurocs == {"*": (1.0, 0.625), "a": (1.0, 0.5), "b": (1.0, 1.0)}
    assert parity.auroc == pytest.approx(0.5)
    assert parity.score == pytest.approx(THRESHOLDS.reject + 0.4, abs=1e-5)


@pytest.mark.parametrize(("difference", "change"), [(4e-6, 0.0), (1e-3, 0.25)])
def test_rounding_of_nearly_equal_scores_is_no_change_of_auroc(difference: float, change: float) -> None:
    first, second = four_scores(0.1, 0.3, 0.3 + difference / 2, 0.5), four_scores(0.1, 0.3 + difference, 0.3, 0.5)
    parity = compare(first, second, FOUR_LABELLED, batches=(1,), thresholds=THRESHOLDS, guard=1e-4)
    assert parity.auroc == pytest.approx(change)


def test_flips_within_the_guard_are_counted_apart() -> None:
    parity = compare(REFERENCE, CANDIDATE, FOUR_LABELLED, batches=(1,), thresholds=THRESHOLDS, guard=0.6)
    assert parity.flips == 0 and parity.near_flips == 1 and parity.near_threshold >= 2


def test_the_candidates_own_thresholds_decide_its_flips() -> None:
    own_thresholds = Thresholds(reinspect=0.05, reject=0.05)
    parity = compare(
        REFERENCE,
        REFERENCE,
        FOUR_LABELLED,
        batches=(1,),
        thresholds=THRESHOLDS,
        guard=0,
        candidate_thresholds=own_thresholds,
    )
    assert parity.flips == 2 + 4  # two sound images, and four artificial images that score 0.1


def test_a_score_that_is_not_finite_is_an_infinite_difference() -> None:
    nan_model = LookupModel([float("nan")] * 256)
    parity = compare(REFERENCE, nan_model, FOUR_LABELLED, batches=(2,), thresholds=THRESHOLDS, guard=1e-4)
    assert parity.score == float("inf")


def _with_card(artifact: Path, to: Path, text: str | None) -> bytes:
    model = onnx.load(str(artifact))
    del model.metadata_props[:]
    if text is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = KEY, text
    onnx.save_model(model, str(to))
    return to.read_bytes()


def test_invalid_artifacts_are_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not an ONNX file"):
        Runtime(b"no model at all", "z.onnx")
    with pytest.raises(BadInput, match="carries no card"):
        Runtime(_with_card(artifact, tmp_path / "a.onnx", None), "a.onnx")
    with pytest.raises(BadInput, match="card is damaged"):
        Runtime(_with_card(artifact, tmp_path / "b.onnx", "{"), "b.onnx")
    content = json.loads(make_card().dump())
    for change, reason in (
        ({"schema": 99}, "reads schema 1"),
        ({"size": 32}, "not those of an inspect-kd artifact of size 32"),
        ({"size": 10**9}, "impossible input size"),
        ({"surprise": 1}, "card is damaged"),
    ):
        with pytest.raises(BadInput, match=reason):
            Runtime(_with_card(artifact, tmp_path / "c.onnx", json.dumps(content | change)), "c.onnx")


def test_tensors_in_other_files_are_refused(artifact: Path, tmp_path: Path) -> None:
    """ONNX Runtime itself would follow some paths even for a model loaded from bytes (tests/test_hostile.py)."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.full(4096, 7, np.float32).tobytes())
    model = onnx.load(str(artifact))
    largest_tensor = max(
        (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT), key=lambda t: len(t.raw_data)
    )
    largest_tensor.ClearField("raw_data")
    largest_tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (
        ("location", str(secret)),
        ("offset", "0"),
        ("length", str(4 * int(np.prod(largest_tensor.dims)))),
    ):
        entry = largest_tensor.external_data.add()
        entry.key, entry.value = key, value
    with pytest.raises(BadInput, match="lies in another file"):
        Runtime(model.SerializeToString(), "evil.onnx")
    with pytest.raises(BadInput, match="not an ONNX file that ONNX Runtime can run"):
        open_session(model.SerializeToString(), "evil.onnx", RuntimeOptions())


def test_missing_provider_is_an_error(artifact: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the CUDA provider")
    with pytest.raises(EnvironmentFault, match="requested CUDAExecutionProvider, obtained CPUExecutionProvider"):
        Runtime(artifact.read_bytes(), "x", RuntimeOptions(device="cuda"))
    assert Runtime(artifact.read_bytes(), "x", RuntimeOptions(device="cuda", allow_cpu=True)).size == SIZE


def test_shipped_deployment_loads_and_unknown_name_is_refused() -> None:
    assert load_deployment("onnx").accept.flips == 0
    with pytest.raises(UsageError, match="no deployment named 'tensorrt'"):
        load_deployment("tensorrt")


@pytest.mark.gpu
def test_cuda_provider_agrees_with_the_cpu(artifact: Path) -> None:
    images = np.stack(artificial_images(SIZE))
    cpu, cuda = (
        Runtime(artifact.read_bytes(), "x", RuntimeOptions(device=device)).predict_batch(images)
        for device in ("cpu", "cuda")
    )
    assert np.abs(cpu.scores_N - cuda.scores_N).max() < 1e-3
