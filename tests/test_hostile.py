"""Minimal files that reproduce problems found by fuzzing, and similar files, are refused."""

from __future__ import annotations

import base64
import io
import json
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest
from PIL import Image

from inspect_kd.calibrate import Calibration, calibrate, read_calibration
from inspect_kd.config import load_recipe, read_yaml
from inspect_kd.datasets import list_images, open_dataset
from inspect_kd.datasets.fetch import unpack
from inspect_kd.datasets.images import decode_image, read_image
from inspect_kd.datasets.jpeg_structure import MAX_SCANS
from inspect_kd.datasets.manifest import load_manifest
from inspect_kd.errors import BadInput, InspectKDError, UsageError
from inspect_kd.export import to_onnx, to_openvino
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.wire import refuse_external_data
from inspect_kd.signing import load_signers, make_keys, sign, signature_path, verify
from inspect_kd.types import NoProgress
from tests import trees
from tests.fuzzing import graphs, pictures

# --- artifacts


@pytest.mark.parametrize("overlong", [False, True])
def test_runtimes_refuse_external_weights(overlong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.bin").write_bytes(np.full(27, 0.5, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    content, image = (
        graphs.with_external_weights(overlong=overlong),
        np.ones((1, graphs.SIZE, graphs.SIZE, 3), np.uint8),
    )
    # Both runtimes would read the file, though the model was passed as bytes.
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert session.run(["score"], {"images": image})[0][0] > 0.99
    compiled = openvino.Core().compile_model(openvino.Core().read_model(content), "CPU")
    assert compiled({"images": image})["score"][0] > 0.99
    with pytest.raises(BadInput):
        refuse_external_data(content, "a.onnx")
    for target in (to_onnx, to_openvino):
        with pytest.raises(BadInput):
            target.Runtime(content, "a.onnx")


@pytest.mark.parametrize(
    "change",
    [
        {"bits": [12]},
        {"bits": 10**12},
        {"tile": {}},
        {"tile": "64"},
        {"size": True},
        {"overlap": "0.1"},
        {"categories": [["a"]]},
        {"categories": "ab"},
        {"categories": {"a": 1}},
        {"categories": ["*"]},
        {"schema": True},
        {"schema": 1.0},
        {"categories": ["\x1b[2J"]},
        {"name": "\ud800"},
        {"licences": ["none"]},
        {"parity": {"score": float("nan")}},
        {"data": {"x": 10**30}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_card_with_wrong_types_is_refused(change: dict[str, object]) -> None:
    content = json.loads(graphs.card().dump())
    assert ArtifactCard.parse(json.dumps(content), "a")
    with pytest.raises(BadInput) as raised:
        ArtifactCard.parse(json.dumps(content | change), "a")
    assert str(raised.value).encode() and len(str(raised.value)) < 300


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 5000, '{"schema": 1, "schema": 1}', '{"x": 1e999}'])
def test_card_with_invalid_json_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        ArtifactCard.parse(text, "a")


def test_metadata_that_is_not_utf8_is_refused() -> None:
    content = graphs.with_card(b"\xff\xfe{")
    for target in (to_onnx, to_openvino):
        with pytest.raises(BadInput):
            target.Runtime(content, "a.onnx")


def test_graph_that_fails_at_run_time_is_refused() -> None:
    model = graphs.artifact()
    model.graph.node[4].attribute[0].i = 1  # the scores then have the heatmap's rank, contrary to their declaration
    for target in (to_onnx, to_openvino):
        with pytest.raises(BadInput):
            target.Runtime(model.SerializeToString(), "a").predict_batch(
                np.zeros((1, graphs.SIZE, graphs.SIZE, 3), np.uint8)
            )


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 10**400},
        {"scale": "1"},
        {"scale": True},
        {"scores": {"a": ["x"]}},
        {"scores": {"a": "12"}},
        {"scores": {"a": ["12"]}},
        {"n": True},
        {"scores": {"a": [float("nan")]}},
        {"limits": {"*": {"thresholds": {"reinspect": "1", "reject": 2}}}},
        {"n": -3},
        {"n": 2.5},
        {"asked_reject": 0},
        {"asked_reject": 5e-324},
        {"reject_promise": float("nan")},
        {"thresholds": {"reinspect": -(10**400), "reject": 10**400}},
    ],
    ids=str,
)
def test_calibration_with_impossible_values_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    content = graphs.card().calibration.to_json()
    if not set(change) & set(content):
        change = {"limits": {"*": content["limits"]["*"] | change}}
    with pytest.raises(BadInput):
        Calibration.from_json(content | change)
    (tmp_path / "calibration.json").write_text(json.dumps(content | change))
    with pytest.raises(BadInput, match="calibration"):
        read_calibration(tmp_path / "calibration.json")


@pytest.mark.parametrize("limit", [1e6, 1e7, 1e299])
def test_limit_of_one_category_is_bounded(limit: float) -> None:
    """A limit that no score reaches makes every part of its category OK."""
    content = graphs.card().calibration.to_json()
    pooled = content["limits"]["*"]
    content["limits"]["a"] = pooled | {"thresholds": {"reinspect": 1.0, "reject": limit}}
    with pytest.raises(BadInput, match=r"the reject threshold of 'a' is 1e.*must be below 1e"):
        Calibration.from_json(content)


def test_scores_of_a_category_with_the_name_of_all_categories_are_refused() -> None:
    with pytest.raises(BadInput, match=r"a category called '\*'"):
        calibrate({"*": [1.0, 2.0], "a": [3.0]}, reject_rate=0.5, reinspect_rate=0.5)


def test_deeply_nested_signature_is_refused(tmp_path: Path) -> None:
    make_keys(tmp_path / "k.pem", None)
    (tmp_path / "a.onnx").write_bytes(b"x")
    sign(tmp_path / "a.onnx", tmp_path / "k.pem")
    signature_path(tmp_path / "a.onnx").write_bytes(b"[" * 60_000)
    with pytest.raises(BadInput, match="not a signature"):
        verify(tmp_path / "a.onnx", load_signers(tmp_path))


# --- images


@pytest.mark.parametrize(
    ("side", "depth", "colour_type"),
    [(8000, 16, 6), (9500, 8, 6), (9900, 8, 2)],
    ids=["16-bit RGBA", "8-bit RGBA", "8-bit RGB"],
)
def test_largest_images_need_little_more_memory_than_their_pixels(
    side: int, depth: int, colour_type: int, tmp_path: Path
) -> None:
    """A naive conversion takes 42 bytes per pixel of 16-bit RGBA, and 18 of 8-bit RGB."""
    (tmp_path / "a.png").write_bytes(pictures.bomb(side, depth, colour_type))
    program = (
        "import resource, sys\nfrom inspect_kd.datasets.images import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert read_image(sys.argv[1]).min() == 255\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.png")]
    grown_bytes = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown_bytes < 2.5 * side * side * (3 if colour_type == 2 else 4) * depth // 8


def test_image_limit_counts_bytes_not_pixels() -> None:
    for side, depth, colour_type in ((13_300, 16, 6), (13_300, 16, 2), (13_300, 8, 6)):
        with pytest.raises(BadInput, match=r"13300x13300 pixels of \d bytes"):
            decode_image(pictures.bomb(side, depth, colour_type), "a.png")


def test_conversion_in_strips_equals_conversion_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = [decode_image(data, "a") for data in pictures.seeds() if _is_readable(data)]
    monkeypatch.setattr("inspect_kd.datasets.images.STRIP_PIXELS", 50)
    in_strips = [decode_image(data, "a") for data in pictures.seeds() if _is_readable(data)]
    assert len(at_once) > 30 and all(map(np.array_equal, at_once, in_strips))


def _is_readable(data: bytes) -> bool:
    image = Image.open(io.BytesIO(data))
    is_fax = image.info.get("compression") in {"group3", "group4"}
    return image.mode != "F" and getattr(image, "n_frames", 1) == 1 and not is_fax


def test_jpeg_with_a_thousand_scans_is_refused(tmp_path: Path) -> None:
    """Each scan costs a pass over all pixels, so a file of a kilobyte would take seconds."""
    Image.new("RGB", (64, 64), (9, 8, 7)).save(tmp_path / "a.jpg", progressive=True)
    data = (tmp_path / "a.jpg").read_bytes()
    assert 1 < data.count(b"\xff\xda") < MAX_SCANS and decode_image(data, "a.jpg").shape == (64, 64, 3)
    last_scan = data.rindex(b"\xff\xda")
    with pytest.raises(BadInput, match="scans"):
        decode_image(data[:last_scan] + data[last_scan:-2] * 1000 + data[-2:], "a.jpg")


@pytest.mark.timeout(20)
def test_pipes_and_devices_are_refused_as_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    for name in ("a.png", "b.png"):
        with pytest.raises(BadInput, match="not a regular file"):
            read_image(tmp_path / name)


# --- recipes and manifests


@pytest.mark.timeout(20)
@pytest.mark.parametrize("levels", [3, 30])
def test_yaml_aliases_are_refused(levels: int, tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels))]
    (tmp_path / "a.yaml").write_text("\n".join([*lines, f"student: *a{levels - 1}", "name: x"]))
    with pytest.raises(UsageError, match=r"a\.yaml: .*an alias .*line 2") as raised:
        load_recipe(str(tmp_path / "a.yaml"))
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[" * 5000, "nested"),
        ("2001-13-45", "timestamp"),
        ("2001-01-01", "in quotes"),
        ("!!int x", "YAML"),
        ("!!set {a}", "set"),
        ("{1: 2}", "not text"),
        ("{a: 1, a: 2}", "twice"),
        ('"\\ud800"', "YAML"),
        ("9" * 5000, "YAML"),
        ("1:30", "a number with colons"),
        ("1" + ":0" * 1000, "a number with colons"),
        ("12:30:00.5", "a number with colons"),
        ("!!python/name:os.system", "YAML"),
    ],
)
def test_unsupported_yaml_values_are_refused(value: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"name: x\nstudent: {value}\n")
    with pytest.raises(UsageError, match=reason):
        load_recipe(str(tmp_path / "a.yaml"))
    with pytest.raises(UsageError, match=r"--set student\.x: "):
        load_recipe("omni_ad", [f"student.x={value}"])


def test_yaml_file_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(UsageError, match="1073741824 bytes"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", ".."), ("name", "."), ("root", "../../x"), ("root", "a/../../.."), ("root", "."), ("root", "9" * 5000)],
)
def test_manifest_outside_the_data_folder_is_refused(key: str, value: str, tmp_path: Path) -> None:
    content = {"name": "x", "title": "t", "root": "x"} | {key: value}
    text = "\n".join(f"{field}: {json.dumps(entry)}" for field, entry in content.items())
    (tmp_path / "a.yaml").write_text(f"{text}\nlicence: {{name: n, commercial: false}}\nsource: {{by_hand: h}}\n")
    with pytest.raises(UsageError, match=key if key == "name" else "leads out|longer than"):
        load_manifest(str(tmp_path / "a.yaml"))


def test_error_message_is_shortened_and_printable() -> None:
    text = str(BadInput("\x1b[2J\ud800" + "x" * 10**6))
    assert text.isprintable() and text.encode() and len(text) < 2100 and text.startswith("\\x1b[2J\\ud800x")


# --- data sets


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside the data set."""
    (tmp_path / "outside").mkdir()
    path = tmp_path / "outside" / "secret.bmp"
    path.write_bytes(b"a secret")
    return path


@pytest.mark.parametrize(("layout", "file"), [("kolektor", "kos05/Part0_label.bmp"), ("masks_beside", "b1_mask.png")])
def test_layouts_read_no_masks_outside_the_data_set(layout: str, file: str, tmp_path: Path, secret: Path) -> None:
    root = trees.BUILDERS[layout](tmp_path / "set")
    (root / file).unlink()
    (root / file).symlink_to(secret)
    # A message about its content would show that it had been read.
    with pytest.raises(BadInput, match="leads out of the data set's folder"):
        open_dataset(root)


def test_image_with_the_longest_name_has_no_mask(tmp_path: Path) -> None:
    """The name of its mask would be longer than a file name may be."""
    root = trees.BUILDERS["folder"](tmp_path / "set")
    image = next(
        path for path in sorted(root.rglob("*.png")) if path.parent.name == "scratch" and "mask" not in path.stem
    )
    image.rename(image.with_name("x" * 250 + ".png"))
    samples = [sample for sample in open_dataset(root).samples if sample.image.stem == "x" * 250]
    assert [sample.mask for sample in samples] == [None]


def test_links_out_of_an_image_folder_are_refused(tmp_path: Path, secret: Path) -> None:
    root = trees.BUILDERS["sound_only"](tmp_path / "set")
    (root / "x.png").symlink_to(secret)
    with pytest.raises(BadInput, match="leads out"):
        list_images(root)
    (root / "x.png").unlink()
    (root / "x.png").symlink_to("x.png")
    assert len(list_images(root)) == 10


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("images/3.png", "images/3\0.png", "not a valid path"),
        ("images/3.png,good,gear,", '"images/3.png', "no label|table|no file"),
        ("images/3.png,good,gear,", ",good,gear,", "line 5: the cell of the column image"),
        ("images/3.png", "images/none.png", "cannot be read"),
        ("images/3.png", "../outside/secret.bmp", "leads out"),
        ("images/3.png", "i" * 200_000, "not readable as a table"),
        ("images/3.png", "i" * 5000, "not a valid path|cannot be read"),
    ],
)
def test_table_with_a_bad_cell_is_refused(old: str, new: str, reason: str, tmp_path: Path, secret: Path) -> None:
    table = trees.BUILDERS["csv"](tmp_path / "set")
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(BadInput, match=reason):
        open_dataset(table).digest


def test_table_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    table = trees.BUILDERS["csv"](tmp_path / "csv")
    table.write_bytes(b"\xff" + table.read_bytes())
    with pytest.raises(BadInput, match="table"):
        open_dataset(table)


def test_visa_row_without_an_image_is_refused(tmp_path: Path) -> None:
    table = trees.BUILDERS["visa"](tmp_path / "visa") / "split_csv" / "1cls.csv"
    rows = table.read_text()
    table.write_text(rows.replace(",pcb1/Data/Images/Normal/3.JPG,", ""))
    with pytest.raises(BadInput, match="a row has no image"):
        open_dataset(tmp_path / "visa")


def test_visa_table_outside_the_data_set_is_refused(tmp_path: Path, secret: Path) -> None:
    table = trees.BUILDERS["visa"](tmp_path / "visa") / "split_csv" / "1cls.csv"
    table.unlink()
    table.symlink_to(secret)
    with pytest.raises(BadInput, match="leads out"):
        open_dataset(tmp_path / "visa")


def _zero_bytes(content: bytes) -> bytes:
    return content.replace(content[40:60], bytes(20))


def _set_encryption_flags(content: bytes) -> bytes:
    flagged = bytearray(content)
    for start in (b"PK\x03\x04", b"PK\x01\x02"):
        struct.pack_into("<H", flagged, content.index(start) + (6 if start[2] == 3 else 8), 1)
    return bytes(flagged)


def _truncate(content: bytes) -> bytes:
    return content[:-30]


@pytest.mark.parametrize("corrupt", [_zero_bytes, _set_encryption_flags, _truncate])
def test_broken_zip_is_refused(corrupt: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"picture" * 100)
    path.write_bytes(corrupt(path.read_bytes()))
    (tmp_path / "to").mkdir()
    with pytest.raises(BadInput, match=r"a\.zip: "):
        unpack(path, tmp_path / "to", NoProgress())


def test_truncated_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(__file__, "a.png")
    content = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InspectKDError, match=r"a\.tar\.gz: "):
        unpack(tmp_path / "a.tar.gz", tmp_path / "to", NoProgress())


def test_zip_with_lzma_is_refused(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", b"picture" * 100)
    with pytest.raises(BadInput, match="compression method 14"):
        unpack(tmp_path / "a.zip", tmp_path / "to", NoProgress())


def test_xz_archive_with_a_huge_dictionary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    # The archive has 700 bytes, but asks for a dictionary of 1.5 GB.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 3 * 2**29}]
    tar_file = io.BytesIO()
    with tarfile.open(fileobj=tar_file, mode="w") as tar:
        tar.add(__file__, "a.png")
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(tar_file.getvalue(), filters=filters))
    with pytest.raises(BadInput, match=r"damaged archive .*emory"):
        unpack(tmp_path / "a.tar.xz", tmp_path / "to", NoProgress())
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(tar_file.getvalue(), preset=6))
    unpack(tmp_path / "a.tar.xz", tmp_path / "to", NoProgress())
    assert (tmp_path / "to" / "a.png").read_bytes() == Path(__file__).read_bytes()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have only UTF-8 names")
def test_file_name_that_is_not_utf8_is_part_of_the_data_set(tmp_path: Path) -> None:
    root = trees.BUILDERS["sound_only"](tmp_path / "set")
    (root / "3.png").rename(root / "\udcff.png")
    assert len(open_dataset(root).samples) == 10 and len(open_dataset(root).digest) == 64


def test_key_of_an_unknown_algorithm_is_refused(tmp_path: Path) -> None:
    make_keys(tmp_path / "k.pem", None)
    body = base64.b64decode("".join((tmp_path / "k.pub").read_text().splitlines()[1:-1]))
    unknown = base64.b64encode(body.replace(b"\x2b\x65\x70", b"\x2b\x65\x7f")).decode()
    (tmp_path / "k.pub").write_text(f"-----BEGIN PUBLIC KEY-----\n{unknown}\n-----END PUBLIC KEY-----\n")
    with pytest.raises(UsageError, match="not a public key"):
        load_signers(tmp_path / "k.pub")
