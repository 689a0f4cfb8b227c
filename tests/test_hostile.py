"""What the fuzz suite has found, each as the smallest file that did it, beside a few of its kin that were refused before."""

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
from pathlib import Path

import numpy as np
import openvino
import pytest
from onnx import TensorProto
from PIL import Image

from inspect_kd.calibrate import Calibration, read_calibration
from inspect_kd.config import load_recipe, read_yaml
from inspect_kd.datasets import every_image, open_dataset
from inspect_kd.datasets.fetch import unpack
from inspect_kd.datasets.images import decode_image, read_image
from inspect_kd.datasets.jpeg_structure import MOST_SCANS
from inspect_kd.datasets.manifest import load_manifest
from inspect_kd.errors import BadInput, InspectKDError, UsageError
from inspect_kd.export import to_onnx, to_openvino
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.wire import refuse_external_data
from inspect_kd.signing import make_keys, sign, signature_of, signers, verify
from inspect_kd.types import NoProgress
from tests import trees
from tests.fuzzing import graphs, pictures

# --- artifacts


def elsewhere(*, overlong: bool) -> bytes:
    """An artifact whose weights are those in `w.bin`. Overlong: with tags that C++ cuts to 32 bits before it reads them."""
    model, tensor = graphs.artifact(), TensorProto(name="w", data_type=1, dims=[1, 3, 3, 3], data_location=1)
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "108")):
        tensor.external_data.add(key=key, value=value)
    raw = tensor.SerializeToString()
    if overlong:
        raw = raw.replace(b"\x6a", b"\xea\x80\x80\x80\x10").replace(b"\x70\x01", b"\xf0\x80\x80\x80\x10\x01")
    del model.graph.initializer[0]
    graph = model.graph.SerializeToString() + b"\x2a" + graphs.length_of(raw)
    model.ClearField("graph")
    return bytes(model.SerializeToString()) + b"\x3a" + graphs.length_of(graph)


@pytest.mark.parametrize("overlong", [False, True])
def test_no_runtime_reads_a_file_that_an_artifact_names(
    overlong: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w.bin").write_bytes(np.full(27, 0.5, np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    content, image = elsewhere(overlong=overlong), np.ones((1, graphs.SIZE, graphs.SIZE, 3), np.uint8)
    # The threat is real: both runtimes read the file, though the model came as bytes.
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
        {"categories": ["\x1b[2J"]},
        {"name": "\ud800"},
        {"licences": ["none"]},
        {"parity": {"score": float("nan")}},
        {"data": {"x": 10**30}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_card_of_wrong_kinds(change: dict[str, object]) -> None:
    content = json.loads(graphs.card().dump())
    assert ArtifactCard.parse(json.dumps(content), "a")
    with pytest.raises(BadInput) as caught:
        ArtifactCard.parse(json.dumps(content | change), "a")
    assert str(caught.value).encode() and len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 5000, '{"schema": 1, "schema": 1}', '{"x": 1e999}'])
def test_a_card_that_is_hardly_json(text: str) -> None:
    with pytest.raises(BadInput):
        ArtifactCard.parse(text, "a")


def test_metadata_that_is_no_text() -> None:
    content = graphs.with_card(b"\xff\xfe{")
    for target in (to_onnx, to_openvino):
        with pytest.raises(BadInput):
            target.Runtime(content, "a.onnx")


def test_a_graph_that_fails_only_when_it_runs() -> None:
    model = graphs.artifact()
    model.graph.node[4].attribute[0].i = 1  # the scores get the heatmap's rank, against what is declared
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
def test_a_calibration_that_could_call_a_defect_ok(change: dict[str, object], tmp_path: Path) -> None:
    content = graphs.card().calibration.to_json()
    if not set(change) & set(content):
        change = {"limits": {"*": content["limits"]["*"] | change}}
    with pytest.raises(BadInput):
        Calibration.from_json(content | change)
    (tmp_path / "calibration.json").write_text(json.dumps(content | change))
    with pytest.raises(BadInput, match="calibration"):
        read_calibration(tmp_path / "calibration.json")


def test_a_signature_nested_without_end(tmp_path: Path) -> None:
    make_keys(tmp_path / "k.pem", None)
    (tmp_path / "a.onnx").write_bytes(b"x")
    sign(tmp_path / "a.onnx", tmp_path / "k.pem")
    signature_of(tmp_path / "a.onnx").write_bytes(b"[" * 60_000)
    with pytest.raises(BadInput, match="not a signature"):
        verify(tmp_path / "a.onnx", signers(tmp_path))


# --- images


@pytest.mark.parametrize(
    ("side", "depth", "colour"), [(8000, 16, 6), (9500, 8, 6), (9900, 8, 2)], ids=["deep", "alpha", "colour"]
)
def test_the_largest_pictures_take_little_more_than_their_pixels(
    side: int, depth: int, colour: int, tmp_path: Path
) -> None:
    """Before: 42 bytes a pixel of 16-bit RGBA, 18 of 8-bit RGB."""
    (tmp_path / "a.png").write_bytes(pictures.bomb(side, depth, colour))
    program = (
        "import resource, sys\nfrom inspect_kd.datasets.images import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert read_image(sys.argv[1]).min() == 255\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "a.png")]
    grew = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert grew < 2.5 * side * side * (3 if colour == 2 else 4) * depth // 8


def test_a_picture_is_held_to_its_bytes_not_to_its_pixels() -> None:
    for side, depth, colour in ((13_300, 16, 6), (13_300, 16, 2), (13_300, 8, 6)):
        with pytest.raises(BadInput, match=r"13300x13300 pixels of \d bytes"):
            decode_image(pictures.bomb(side, depth, colour), "a.png")


def test_strips_give_what_the_whole_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [decode_image(data, "a") for data in pictures.seeds() if _is_read(data)]
    monkeypatch.setattr("inspect_kd.datasets.images.STRIP", 50)
    parts = [decode_image(data, "a") for data in pictures.seeds() if _is_read(data)]
    assert len(whole) > 30 and all(map(np.array_equal, whole, parts))


def _is_read(data: bytes) -> bool:
    image = Image.open(io.BytesIO(data))
    return image.mode != "F" and getattr(image, "n_frames", 1) == 1


def test_a_jpeg_of_a_thousand_scans(tmp_path: Path) -> None:
    """Each costs a look at every pixel: seconds a kilobyte."""
    Image.new("RGB", (64, 64), (9, 8, 7)).save(tmp_path / "a.jpg", progressive=True)
    data = (tmp_path / "a.jpg").read_bytes()
    assert 1 < data.count(b"\xff\xda") < MOST_SCANS and decode_image(data, "a.jpg").shape == (64, 64, 3)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(BadInput, match="scans"):
        decode_image(data[:last] + data[last:-2] * 1000 + data[-2:], "a.jpg")


@pytest.mark.timeout(20)
def test_pipes_and_devices_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    for name in ("a.png", "b.png"):
        with pytest.raises(BadInput, match="not a regular file"):
            read_image(tmp_path / name)


# --- recipes and manifests


@pytest.mark.timeout(20)
@pytest.mark.parametrize("levels", [3, 30])
def test_a_billion_laughs(levels: int, tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels))]
    (tmp_path / "a.yaml").write_text("\n".join([*lines, f"student: *a{levels - 1}", "name: x"]))
    with pytest.raises(UsageError, match=r"a\.yaml: .*an alias .*line 2") as caught:
        load_recipe(str(tmp_path / "a.yaml"))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("value", "says"),
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
def test_values_that_no_recipe_needs(value: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"name: x\nstudent: {value}\n")
    with pytest.raises(UsageError, match=says):
        load_recipe(str(tmp_path / "a.yaml"))
    with pytest.raises(UsageError, match=r"--set student\.x: "):
        load_recipe("omni_ad", [f"student.x={value}"])


def test_a_recipe_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(UsageError, match="1073741824 bytes"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", ".."), ("name", "."), ("root", "../../x"), ("root", "a/../../.."), ("root", "."), ("root", "9" * 5000)],
)
def test_no_manifest_climbs_out_of_the_data(key: str, value: str, tmp_path: Path) -> None:
    content = {"name": "x", "title": "t", "root": "x"} | {key: value}
    text = "\n".join(f"{each}: {json.dumps(told)}" for each, told in content.items())
    (tmp_path / "a.yaml").write_text(f"{text}\nlicence: {{name: n, commercial: false}}\nsource: {{by_hand: h}}\n")
    with pytest.raises(UsageError, match=key if key == "name" else "leads out|longer than"):
        load_manifest(str(tmp_path / "a.yaml"))


def test_a_message_quotes_no_pages_and_steers_no_terminal() -> None:
    text = str(BadInput("\x1b[2J\ud800" + "x" * 10**6))
    assert text.isprintable() and text.encode() and len(text) < 2100 and text.startswith("\\x1b[2J\\ud800x")


# --- data sets


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A mask that lies outside, and cannot even be looked at without being read in full."""
    (tmp_path / "outside").mkdir()
    path = tmp_path / "outside" / "secret.bmp"
    path.write_bytes(b"read by somebody")
    return path


@pytest.mark.parametrize(("layout", "file"), [("kolektor", "kos05/Part0_label.bmp"), ("masks_beside", "b1_mask.png")])
def test_layouts_that_look_at_masks_look_at_none_outside(layout: str, file: str, tmp_path: Path, secret: Path) -> None:
    root = trees.BUILDERS[layout](tmp_path / "set")
    (root / file).unlink()
    (root / file).symlink_to(secret)
    # "not an image" would say that it had been read.
    with pytest.raises(BadInput, match="leads out of the data set's folder"):
        open_dataset(root)


def test_a_name_that_has_no_room_for_a_masks_ending_has_no_mask(tmp_path: Path) -> None:
    """Found by mutation: the image's own name is as long as a name may be."""
    root = trees.BUILDERS["folder"](tmp_path / "set")
    image = next(
        path for path in sorted(root.rglob("*.png")) if path.parent.name == "scratch" and "mask" not in path.stem
    )
    image.rename(image.with_name("x" * 250 + ".png"))
    samples = [sample for sample in open_dataset(root).samples if sample.image.stem == "x" * 250]
    assert [sample.mask for sample in samples] == [None]


def test_links_out_of_a_folder_of_images_are_refused(tmp_path: Path, secret: Path) -> None:
    root = trees.BUILDERS["sound_only"](tmp_path / "set")
    (root / "x.png").symlink_to(secret)
    with pytest.raises(BadInput, match="leads out"):
        every_image(root)
    (root / "x.png").unlink()
    (root / "x.png").symlink_to("x.png")
    assert len(every_image(root)) == 10


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("images/3.png", "images/3\0.png", "no file's path"),
        ("images/3.png,good,gear,", '"images/3.png', "no label|table|no file"),
        ("images/3.png,good,gear,", ",good,gear,", "line 5: no image"),
        ("images/3.png", "images/none.png", "cannot be read"),
        ("images/3.png", "../outside/secret.bmp", "leads out"),
        ("images/3.png", "i" * 200_000, "not readable as a table"),
        ("images/3.png", "i" * 5000, "no file's path|cannot be read"),
    ],
)
def test_tables_that_lie(old: str, new: str, says: str, tmp_path: Path, secret: Path) -> None:
    table = trees.BUILDERS["csv"](tmp_path / "set")
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(BadInput, match=says):
        open_dataset(table).digest


def test_tables_that_are_no_text(tmp_path: Path, secret: Path) -> None:
    table = trees.BUILDERS["csv"](tmp_path / "csv")
    table.write_bytes(b"\xff" + table.read_bytes())
    with pytest.raises(BadInput, match="table"):
        open_dataset(table)
    visa = trees.BUILDERS["visa"](tmp_path / "visa") / "split_csv" / "1cls.csv"
    rows = visa.read_text()
    visa.write_text(rows.replace(",pcb1/Data/Images/Normal/3.JPG,", ""))
    with pytest.raises(BadInput, match="without an image"):
        open_dataset(tmp_path / "visa")
    visa.unlink()
    visa.symlink_to(secret)
    with pytest.raises(BadInput, match="leads out"):
        open_dataset(tmp_path / "visa")


def test_archives_that_break_while_they_are_read(tmp_path: Path) -> None:
    packed = tmp_path / "a.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"picture" * 100)
    whole = packed.read_bytes()
    locked = bytearray(whole)
    for start in (b"PK\x03\x04", b"PK\x01\x02"):
        place = whole.index(start) + (6 if start[2] == 3 else 8)
        struct.pack_into("<H", locked, place, 1)
    for content in (whole.replace(whole[40:60], bytes(20)), bytes(locked), whole[:-30]):
        packed.write_bytes(content)
        (tmp_path / "to").mkdir(exist_ok=True)
        with pytest.raises(BadInput, match=r"a\.zip: "):
            unpack(packed, tmp_path / "to", NoProgress())
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(__file__, "a.png")
    torn = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(torn[: len(torn) // 2])
    with pytest.raises(InspectKDError, match=r"a\.tar\.gz: "):
        unpack(tmp_path / "a.tar.gz", tmp_path / "to", NoProgress())


def test_no_archive_says_how_much_memory_it_takes(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", b"picture" * 100)
    with pytest.raises(BadInput, match="packed by method 14"):
        unpack(tmp_path / "a.zip", tmp_path / "to", NoProgress())
    # A gigabyte and a half of dictionary for seven hundred bytes.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 3 * 2**29}]
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as tar:
        tar.add(__file__, "a.png")
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(inner.getvalue(), filters=filters))
    with pytest.raises(BadInput, match=r"damaged archive .*emory"):
        unpack(tmp_path / "a.tar.xz", tmp_path / "to", NoProgress())
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(inner.getvalue(), preset=6))
    unpack(tmp_path / "a.tar.xz", tmp_path / "to", NoProgress())
    assert (tmp_path / "to" / "a.png").read_bytes() == Path(__file__).read_bytes()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems know no such names")
def test_names_that_are_no_text_have_a_place(tmp_path: Path) -> None:
    root = trees.BUILDERS["sound_only"](tmp_path / "set")
    (root / "3.png").rename(root / "\udcff.png")
    assert len(open_dataset(root).samples) == 10 and len(open_dataset(root).digest) == 64


def test_a_key_of_a_kind_that_nobody_knows(tmp_path: Path) -> None:
    make_keys(tmp_path / "k.pem", None)
    body = base64.b64decode("".join((tmp_path / "k.pub").read_text().splitlines()[1:-1]))
    strange = base64.b64encode(body.replace(b"\x2b\x65\x70", b"\x2b\x65\x7f")).decode()
    (tmp_path / "k.pub").write_text(f"-----BEGIN PUBLIC KEY-----\n{strange}\n-----END PUBLIC KEY-----\n")
    with pytest.raises(UsageError, match="not a public key"):
        signers(tmp_path / "k.pub")
