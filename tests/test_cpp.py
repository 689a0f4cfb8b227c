"""The C++ program of export/cpp is built, and compared with Python image by image."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from inspect_kd.errors import BadInput
from inspect_kd.export import to_onnx
from inspect_kd.export.card import KEY
from inspect_kd.export.wire import card_text, refuse_external_data
from inspect_kd.inspector import Inspector
from inspect_kd.types import Decision, Inspection
from tests.ambiguous_files import artifact_with_many_fields, flatbuffer_that_is_a_protobuf
from tests.cpp_program import ROOT, assert_same, run_program, with_changed_card
from tests.factory_images import IMAGES, REFUSED_FILES, picture, write_jpeg_with_thumbnail, write_turned_by_xmp
from tests.fuzzing import graphs
from tests.several_images import MULTI_IMAGE_FILES, SINGLE_IMAGE_FILES, encode, repeat_last_scan
from tests.tied_student import export_tied, tied_student


@pytest.fixture(scope="module")
def artifact(run: Path) -> Path:
    return run / "r.onnx"


@pytest.fixture(scope="module")
def inspector(artifact: Path) -> Inspector:
    return Inspector(artifact)


def test_decisions_on_all_test_images_are_as_in_python(
    program: Path, artifact: Path, inspector: Inspector, parts: Path
) -> None:
    images = sorted(parts.rglob("test/*/*.png"))
    assert len(images) > 10
    for category in (None, *inspector.card.categories):
        category_inspector = Inspector(artifact, category=category)
        arguments = [] if category is None else ["--category", category]
        lines, code, _ = run_program(program, artifact, *arguments, "--threads", 1, *images)
        assert code == 0 and len(lines) == len(images)
        for image, line in zip(images, lines, strict=True):
            assert_same(line, category_inspector(image))
    assert len({line["decision"] for line in lines}) > 1


def test_scores_of_all_image_formats_are_as_in_python(
    program: Path, artifact: Path, inspector: Inspector, tmp_path: Path
) -> None:
    for name, write in IMAGES.items():
        write(tmp_path / name)
    paths = [tmp_path / name for name in IMAGES]
    lines, code, stderr = run_program(program, artifact, *paths)
    assert code == 0, stderr
    for path, line in zip(paths, lines, strict=True):
        assert_same(line, inspector(path))
    scores = {Path(line["image"]).name: line["score"] for line in lines}
    assert len({scores[f"turned{turn}.jpg"] for turn in range(1, 9)}) == 8, "a turned image must have its own score"


def test_scores_with_tied_prototypes_are_as_in_python(program: Path, tmp_path: Path) -> None:
    graph, pictures = tied_student()
    tied_artifact = tmp_path / "tied.onnx"
    assert not export_tied(graph, pictures, "onnx", tied_artifact).exceeded_limits
    for number, picture_HW3 in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture_HW3[:, :, ::-1])
    paths = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    lines, code, stderr = run_program(program, tied_artifact, *paths)
    assert code == 0, stderr
    tied_inspector = Inspector(tied_artifact)
    for path, line in zip(paths, lines, strict=True):
        assert_same(line, tied_inspector(path))


def test_significant_bits_of_the_card_are_applied(program: Path, artifact: Path, tmp_path: Path) -> None:
    artifact_12_bits = with_changed_card(artifact, tmp_path / "twelve.onnx", bits=12)
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    cv2.imwrite(str(tmp_path / "a.png"), ramp)
    lines, code, _ = run_program(program, artifact_12_bits, tmp_path / "a.png")
    assert code == 0
    assert_same(lines[0], Inspector(artifact_12_bits)(tmp_path / "a.png"))
    assert lines[0]["score"] != run_program(program, artifact, tmp_path / "a.png")[0][0]["score"]
    cv2.imwrite(str(tmp_path / "beyond.png"), ramp + 1)
    lines, code, _ = run_program(program, artifact_12_bits, tmp_path / "beyond.png")
    assert code == 3 and "12 significant bits" in lines[0]["error"]
    with pytest.raises(BadInput, match="12 significant bits"):
        Inspector(artifact_12_bits)(tmp_path / "beyond.png")


def test_image_that_cannot_be_read_is_ng_with_its_reason(program: Path, artifact: Path, tmp_path: Path) -> None:
    sound = tmp_path / "sound.jpg"
    write_turned_by_xmp(sound, 1)
    for name, (write, _) in REFUSED_FILES.items():
        write(tmp_path / name)
    lines, code, stderr = run_program(program, artifact, *(tmp_path / name for name in REFUSED_FILES), "", sound)
    assert code == 3 and len(lines) == len(REFUSED_FILES) + 2
    for (name, (_, reason)), line in zip(REFUSED_FILES.items(), lines, strict=False):
        assert line["decision"] == "NG" and reason in line["error"], name
        assert "score" not in line and f"{name}: " in stderr
    assert lines[-2] == {"image": "", "decision": "NG", "error": ": no such file"}
    assert "error" not in lines[-1], "the batch goes on"


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", lambda to: picture(size=(200, 160)).save(to)),
        ("a.jpg", lambda to: picture(size=(200, 160)).save(to)),
        ("progressive.jpg", lambda to: picture(size=(200, 160)).save(to, progressive=True)),
        ("thumbnail.jpg", write_jpeg_with_thumbnail),
        ("a.bmp", lambda to: picture(size=(200, 160)).save(to)),
    ],
)
def test_truncated_file_is_never_accepted(
    program: Path, artifact: Path, tmp_path: Path, name: str, write: Callable[[Path], Any]
) -> None:
    write(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    truncated = []
    for size_kept in sorted(
        {1, 2, 3, 9, len(content) - 1, len(content) - 2, *range(20, len(content), len(content) // 60)}
    ):
        truncated.append(tmp_path / f"{size_kept:07}.{name}")
        truncated[-1].write_bytes(content[:size_kept])
        if name.endswith("jpg"):
            # Zeros are valid codes, so the decoder does not stop at them.
            truncated.append(tmp_path / f"{size_kept:07}.filled.{name}")
            truncated[-1].write_bytes(content[:size_kept].ljust(len(content), b"\0"))
    lines, code, _ = run_program(program, artifact, *truncated)
    assert code == 3 and len(lines) == len(truncated) > 50
    assert all(line["decision"] == "NG" and "error" in line for line in lines)
    whole, code, _ = run_program(program, artifact, tmp_path / name)
    assert code == 0 and "error" not in whole[0]


def test_files_of_several_images_are_ng(program: Path, artifact: Path, tmp_path: Path) -> None:
    names = [name for name in MULTI_IMAGE_FILES if not name.endswith(("tiff", "webp"))]
    paths = [tmp_path / name for name in names]
    for name, path in zip(names, paths, strict=True):
        path.write_bytes(MULTI_IMAGE_FILES[name]())
    paths.append(tmp_path / "scans.jpg")
    paths[-1].write_bytes(repeat_last_scan(encode(picture(), "JPEG", progressive=True), 100))
    lines, code, _ = run_program(program, artifact, *paths)
    assert code == 3 and len(lines) == len(paths) > 5
    for line in lines:
        reason = "more than 64 scans" if line["image"].endswith("scans.jpg") else "save each one alone"
        assert line["decision"] == "NG" and reason in line["error"]


def test_images_with_previews_or_gain_maps_are_read(
    program: Path, artifact: Path, inspector: Inspector, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in SINGLE_IMAGE_FILES if not name.endswith(("tiff", "webp"))]
    for path in paths:
        path.write_bytes(SINGLE_IMAGE_FILES[path.name]())
    lines, code, stderr = run_program(program, artifact, *paths)
    assert code == 0, stderr
    for path, line in zip(paths, lines, strict=True):
        assert_same(line, inspector(path))


def with_valid_checksums(content: bytearray) -> bytes:
    """A mutated PNG with valid checksums, so that it is not refused for them alone."""
    start = 8
    while start + 12 <= len(content):
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[start + 4 : end]))
        start = end + 4
    return bytes(content)


def test_mutated_images_are_refused_or_get_the_score_of_python(
    program: Path, artifact: Path, inspector: Inspector, tmp_path: Path
) -> None:
    """The program refuses every image that Python refuses, and gives any other the same score or refuses it."""
    rng = np.random.default_rng(3)
    paths = []
    for name in ("rgb.png", "palette_alpha.png", "mono16.png", "rgb.jpg", "progressive.jpg", "turned6.jpg", "rgb.bmp"):
        IMAGES[name](tmp_path / name)
        content = (tmp_path / name).read_bytes()
        for number in range(60):
            mutated = bytearray(content)
            # Half of the mutations are in the header.
            end = min(200, len(content)) if number % 2 else len(content)
            for position in rng.integers(2, end, size=1 + number % 4):
                mutated[position] = int(rng.integers(256))
            paths.append(tmp_path / f"{number}.{name}")
            paths[-1].write_bytes(with_valid_checksums(mutated) if name.endswith("png") and number % 3 else mutated)
    lines, code, _ = run_program(program, artifact, *paths)
    assert code == 3 and len(lines) == len(paths)
    compared = 0
    for line, inspection in zip(lines, inspector.each(paths), strict=True):
        if "error" in line:
            assert line["decision"] == "NG"
        else:
            assert isinstance(inspection, Inspection), f"{line['image']}: Python refuses it: {inspection}"
            assert_same(line, inspection)
            compared += 1
    assert compared > 100


def with_another_size(artifact: Path, to: Path) -> Path:
    """Write the artifact with another size in its card than in its graph."""
    return with_changed_card(artifact, to, size=128)


def without_card(artifact: Path, to: Path) -> Path:
    model = onnx.load(str(artifact))
    del model.metadata_props[:]
    onnx.save_model(model, str(to))
    return to


def with_thresholds(artifact: Path, to: Path, **thresholds: Any) -> Path:
    calibration = json.loads(onnx.load(str(artifact)).metadata_props[0].value)["calibration"]
    for limits in calibration["limits"].values():
        limits["thresholds"] |= thresholds
    return with_changed_card(artifact, to, calibration=calibration)


REFUSED_ARTIFACTS: dict[str, tuple[Callable[[Path, Path], Any], int, str]] = {
    "no_card": (without_card, 3, "carries no card"),
    "schema": (lambda a, to: with_changed_card(a, to, schema=2), 3, "artifact of schema 2"),
    "size": (with_another_size, 3, "not those of an inspect-kd artifact of size 128"),
    "fractional_size": (lambda a, to: with_changed_card(a, to, size=64.5), 3, "impossible size 64.5"),
    "size_beyond_32_bits": (lambda a, to: with_changed_card(a, to, size=2**32 + 64), 3, "impossible size"),
    "bits": (lambda a, to: with_changed_card(a, to, bits=99), 3, "impossible bits 99"),
    "tile": (lambda a, to: with_changed_card(a, to, tile=10), 3, "impossible tile 10"),
    "overlap": (lambda a, to: with_changed_card(a, to, overlap=0.8), 3, "impossible overlap 0.8"),
    "resize": (lambda a, to: with_changed_card(a, to, resize="other/2"), 4, "wants images resized by 'other/2'"),
    "threshold_nan": (lambda a, to: with_thresholds(a, to, reject=float("nan")), 3, "the artifact's card is damaged"),
    "thresholds_in_wrong_order": (lambda a, to: with_thresholds(a, to, reinspect=9.0), 3, "impossible thresholds"),
    "no_thresholds": (lambda a, to: with_changed_card(a, to, calibration={}), 3, "the artifact's card is damaged"),
    "not_onnx": (lambda a, to: to.write_bytes(b"no model at all"), 3, "not_onnx.onnx: "),
    "truncated": (lambda a, to: to.write_bytes(a.read_bytes()[:5000]), 3, "truncated.onnx: "),
    "empty": (lambda a, to: to.write_bytes(b""), 3, "an empty file"),
    "folder": (lambda a, to: to.mkdir(), 3, "not a file"),
    "missing": (lambda a, to: None, 3, "no such file"),
}
"""Name of a file → a function that makes it from an artifact, the exit code, and a part of the message."""


@pytest.mark.parametrize("name", REFUSED_ARTIFACTS)
def test_invalid_artifact_is_refused_in_one_line(
    program: Path, artifact: Path, parts: Path, tmp_path: Path, name: str
) -> None:
    make, expected_code, reason = REFUSED_ARTIFACTS[name]
    path = tmp_path / f"{name}.onnx"
    make(artifact, path)
    lines, code, stderr = run_program(program, path, next(parts.rglob("test/*/*.png")))
    assert (lines, code) == ([], expected_code)
    assert reason in stderr and str(path) in stderr and len(stderr.splitlines()) == 1


def test_wrong_arguments_are_refused(program: Path, artifact: Path, parts: Path) -> None:
    image = next(parts.rglob("test/*/*.png"))
    assert run_program(program, artifact, "--category", "unheard-of", image)[1:] == (
        3,
        f"{artifact}: no calibration for category 'unheard-of'\n",
    )
    for arguments in (
        [],
        ["--fast", image],
        ["--threads", "0", image],
        ["--threads", "x", image],
        [image, "--category"],
    ):
        lines, code, stderr = run_program(program, artifact, *arguments)
        assert (lines, code) == ([], 2) and stderr


def constant_artifact(
    artifact: Path,
    to: Path,
    score: float,
    peak: float,
    *,
    score_shape: tuple[int, ...] = (1,),
    heatmap_shape: tuple[int, ...] | None = None,
) -> Path:
    """Write an artifact with this card and a graph of constant outputs: `peak` is the heatmap's first pixel."""
    card = onnx.load(str(artifact)).metadata_props[0].value
    size = json.loads(card)["size"]
    heat_shape = heatmap_shape or (1, 1, size, size)
    image = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("heatmap", "score")]
    constants = [
        helper.make_tensor("h", TensorProto.FLOAT, heat_shape, [peak] + [0.1] * (math.prod(heat_shape) - 1)),
        helper.make_tensor("s", TensorProto.FLOAT, score_shape, [score] * math.prod(score_shape)),
    ]
    nodes = [helper.make_node("Identity", ["h"], ["heatmap"]), helper.make_node("Identity", ["s"], ["score"])]
    graph = helper.make_graph(nodes, "g", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, card
    onnx.save_model(model, str(to))
    return to


@pytest.mark.parametrize(
    ("score", "peak"),
    [(float("nan"), 0.1), (0.1, float("nan")), (float("-inf"), 0.1), (0.1, float("inf"))],
)
def test_invalid_output_of_the_graph_is_ng(
    program: Path, artifact: Path, tmp_path: Path, score: float, peak: float
) -> None:
    constant = constant_artifact(artifact, tmp_path / "constant.onnx", score, peak)
    IMAGES["rgb.png"](tmp_path / "a.png")
    lines, code, _ = run_program(program, constant, tmp_path / "a.png")
    assert code == 3 and lines[0]["decision"] == "NG" and "error" in lines[0]
    with pytest.raises(BadInput):
        Inspector(constant)(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("score_shape", "heatmap_shape"),
    [
        ((2,), None),
        ((1, 1, 1), None),
        ((), None),
        ((1,), (1, 1, 3, 5)),
        ((1,), (1, 1, 64, 65)),
        ((1,), (64, 64)),
        ((1,), (1, 64, 64)),
    ],
    ids=str,
)
def test_outputs_of_another_shape_than_the_card_states_are_ng(
    program: Path, artifact: Path, tmp_path: Path, score_shape: tuple[int, ...], heatmap_shape: tuple[int, ...] | None
) -> None:
    other = constant_artifact(
        artifact, tmp_path / "other.onnx", 0.1, 0.1, score_shape=score_shape, heatmap_shape=heatmap_shape
    )
    IMAGES["rgb.png"](tmp_path / "a.png")
    lines, code, _ = run_program(program, other, tmp_path / "a.png")
    assert code == 3 and lines[0]["decision"] == "NG" and "do not have the shapes" in lines[0]["error"]
    with pytest.raises(BadInput):
        Inspector(other)(tmp_path / "a.png")


def test_scores_at_the_thresholds_are_decided_as_in_python(program: Path, artifact: Path, tmp_path: Path) -> None:
    """Each score is exactly a threshold, or the next float above it."""
    IMAGES["rgb.png"](tmp_path / "a.png")
    decisions = []
    for score in (
        0.5,
        np.nextafter(np.float32(0.5), np.float32(1)),
        0.75,
        np.nextafter(np.float32(0.75), np.float32(1)),
    ):
        path = constant_artifact(
            with_thresholds(artifact, tmp_path / "l.onnx", reinspect=0.5, reject=0.75),
            tmp_path / "c.onnx",
            float(score),
            0.2,
        )
        lines, code, _ = run_program(program, path, tmp_path / "a.png")
        # The quarantine would refuse this graph, which gives one score for a batch of any size.
        inspector = Inspector(path, quarantine=False)
        assert code == 0 and lines[0]["decision"] == str(inspector(tmp_path / "a.png").decision)
        decisions.append(lines[0]["decision"])
    assert decisions == [Decision.OK, Decision.REINSPECT, Decision.REINSPECT, Decision.NG]


def test_thresholds_are_chosen_by_category_as_in_python(
    program: Path, artifact: Path, inspector: Inspector, tmp_path: Path
) -> None:
    """Without --category, the thresholds are those of the only category, or the pooled ones of several."""
    IMAGES["rgb.png"](tmp_path / "a.png")
    category = inspector.card.categories[0]
    calibration = json.loads(onnx.load(str(artifact)).metadata_props[0].value)["calibration"]
    pooled_thresholds, own_thresholds = ({"reinspect": low, "reject": low + 0.1} for low in (0.1, 0.3))
    calibration["limits"]["*"]["thresholds"], calibration["limits"][category]["thresholds"] = (
        pooled_thresholds,
        own_thresholds,
    )
    for categories, arguments, thresholds in (
        ([category], [], own_thresholds),
        ([category, "other"], [], pooled_thresholds),
        ([category, "other"], ["--category", category], own_thresholds),
        ([category], ["--category", "*"], pooled_thresholds),
    ):
        path = with_changed_card(
            artifact, tmp_path / "a.onnx", calibration=calibration, categories=categories, presentations=None
        )
        assert run_program(program, path, *arguments, tmp_path / "a.png")[0][0]["thresholds"] == thresholds
        assert (
            dataclasses.asdict(Inspector(path, category=arguments[-1] if arguments else None).thresholds) == thresholds
        )


def test_no_tensor_is_read_from_another_file(program: Path, artifact: Path, tmp_path: Path) -> None:
    path = constant_artifact(artifact, tmp_path / "outside.onnx", 0.1, 0.1)
    model = onnx.load(str(path))
    tensor = model.graph.initializer[1]
    (tmp_path / "secret.bin").write_bytes(tensor.raw_data or np.float32([0.1]).tobytes())
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "secret.bin"), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    IMAGES["rgb.png"](tmp_path / "a.png")
    result = subprocess.run(
        [program, "outside.onnx", "a.png"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 3 and result.stdout == "" and "outside.onnx: " in result.stderr


def with_two_cards(folder: Path) -> bytes:
    model = graphs.artifact()
    model.metadata_props.add(key=KEY, value=graphs.card().dump())
    return bytes(model.SerializeToString())


def with_calibration(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The tiny artifact with another calibration in its card."""
    card = json.loads(graphs.card().dump())
    change(card["calibration"])
    return graphs.with_card(json.dumps(card).encode())


def with_pooled_limits(**values: object) -> bytes:
    """The tiny artifact with other pooled limits in its calibration."""
    return with_calibration(lambda calibration: calibration["limits"]["*"].update(values))


def with_card_fields(**values: object) -> bytes:
    """The tiny artifact with other fields in its card."""
    return graphs.with_card(json.dumps(json.loads(graphs.card().dump()) | values).encode())


def with_text_in_card(more: str) -> bytes:
    """The tiny artifact with further JSON text at the end of its card."""
    return graphs.with_card((graphs.card().dump()[:-1] + ", " + more + "}").encode())


ARTIFACTS_REFUSED_BY_PYTHON: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "weights elsewhere": (lambda _: graphs.with_external_weights(overlong=False), "lies in another file"),
    "long tags": (lambda _: graphs.with_external_weights(overlong=True), "not an ONNX file"),
    "another format": (flatbuffer_that_is_a_protobuf, "not an ONNX file"),
    "two cards": (with_two_cards, "carries 2 cards"),
    "a key twice": (
        lambda _: with_text_in_card(f'"calibration": {json.dumps(graphs.card().calibration.to_json())}'),
        "card is damaged",
    ),
    "a key twice inside": (
        lambda _: graphs.with_card(graphs.card().dump().replace('"reject": ', '"reject": 9, "reject": ').encode()),
        "card is damaged",
    ),
    "an unknown field": (lambda _: with_text_in_card('"later": 1'), "card is damaged"),
    "nested brackets": (
        lambda _: with_text_in_card('"recipe": ' + "[" * 2_000_000 + "]" * 2_000_000),
        "card is damaged",
    ),
    "no parts": (lambda _: with_pooled_limits(n=0), "impossible rates or counts of parts"),
    "a negative scale": (
        lambda _: with_calibration(lambda calibration: calibration.update(scale=-1)),
        "no usable scale",
    ),
    "a threshold out of reach": (
        lambda _: with_pooled_limits(thresholds={"reinspect": 1.0, "reject": 1e9}),
        "pooled reject threshold",
    ),
    "a category's limit out of reach": (
        lambda _: with_calibration(
            lambda calibration: calibration["limits"].update(
                a=calibration["limits"]["*"] | {"thresholds": {"reinspect": 1.0, "reject": 1e299}}
            )
        ),
        "the reject threshold of 'a' is",
    ),
    "scores that are no table": (
        lambda _: with_calibration(lambda calibration: calibration.update(scores=5)),
        "the calibration is not complete",
    ),
    "scores as text": (
        lambda _: with_calibration(lambda calibration: calibration.update(scores={"a": "12"})),
        "the calibration is not complete",
    ),
    "an overlap above 1": (lambda _: with_card_fields(overlap=2), "impossible overlap"),
    "a byte order mark": (
        lambda _: graphs.with_card(b"\xef\xbb\xbf" + graphs.card().dump().encode()),
        "card is damaged",
    ),
    "a schema that is a fraction": (lambda _: with_card_fields(schema=1.0), "artifact of schema 1.0"),
    "categories as text": (lambda _: with_card_fields(categories="a"), "card is damaged"),
    "a category with the name of all": (lambda _: with_card_fields(categories=["*"]), "a category called"),
    "too many fields": (lambda _: artifact_with_many_fields(), "more than 1048576 protobuf fields"),
}
"""Name → a function that makes the file's content, and a part of the message."""


@pytest.mark.parametrize("name", ARTIFACTS_REFUSED_BY_PYTHON)
def test_artifacts_that_python_refuses_are_refused(program: Path, tmp_path: Path, name: str) -> None:
    make, reason = ARTIFACTS_REFUSED_BY_PYTHON[name]
    (tmp_path / "part.onnx").write_bytes(make(tmp_path))
    (tmp_path / "w.bin").write_bytes(np.full(27, 0.5, np.float32).tobytes())
    IMAGES["rgb.png"](tmp_path / "a.png")
    with pytest.raises(BadInput, match=reason):
        to_onnx.Runtime((tmp_path / "part.onnx").read_bytes(), "part.onnx")
    result = subprocess.run([program, "part.onnx", "a.png"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (3, "") and reason in result.stderr


def test_mutated_artifacts_that_python_refuses_are_refused(program: Path, tmp_path: Path) -> None:
    """The runtime may also refuse files that pass the structural checks of both programs."""
    rng, valid_content = np.random.default_rng(5), graphs.artifact().SerializeToString()
    IMAGES["rgb.png"](tmp_path / "a.png")
    refused = 0
    for number in range(40):
        content = bytearray(valid_content)
        for position in rng.integers(0, len(valid_content), size=1 + number % 3):
            content[position] = int(rng.integers(256))
        (tmp_path / "a.onnx").write_bytes(content)
        lines, code, stderr = run_program(program, tmp_path / "a.onnx", tmp_path / "a.png")
        try:
            card_text(bytes(content), "a")
            refuse_external_data(bytes(content), "a")
        except BadInput:
            refused += 1
            assert (lines, code) == ([], 3), stderr
        else:
            assert "not an ONNX file" not in stderr and "another file" not in stderr
    assert refused > 5


def test_real_parts_get_the_same_decisions_in_all_runtimes(program: Path, real_data: Path, tmp_path: Path) -> None:
    """ONNX Runtime and OpenVINO in Python, and the C++ program, on all test images of the real categories."""
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'inspect-kd[openvino]'")
    artifact = os.environ.get("INSPECT_KD_REAL_ARTIFACT")
    if not artifact:
        pytest.skip("no artifact trained on real parts at hand; set INSPECT_KD_REAL_ARTIFACT")
    command = [sys.executable, str(ROOT / "benchmarks" / "agreement.py"), artifact, "--results", str(tmp_path)]
    environment = os.environ | {"INSPECT_KD_REAL_DATA": str(real_data)}
    subprocess.run(command, check=True, env=environment)
    rows = json.loads((tmp_path / "agreement.json").read_text())["rows"]
    assert rows and sum(row["images"] for row in rows) > 100
    for row in rows:
        assert row["differ"] == [], row
        assert row["largest"]["c++"] < 1e-3 and row["largest"]["openvino"] < 1e-3


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="no such files")
def test_file_of_the_system_without_a_size_is_not_read(program: Path, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("/proc/self/mountinfo")
    lines, code, _ = run_program(program, artifact, tmp_path / "a.png")
    assert code == 3 and lines[0]["error"].endswith("an empty file")
