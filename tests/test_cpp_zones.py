"""The C++ program reads, draws and weighs zones as Python does, and refuses the same damaged ones."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from inspect_kd.calibrate import calibrate
from inspect_kd.datasets.alignment import Alignment
from inspect_kd.datasets.alignment.pose import Grey
from inspect_kd.datasets.presentation import Presentation, Presentations
from inspect_kd.datasets.view import View
from inspect_kd.datasets.zones import Zone, Zones
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.export import to_onnx
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.graph import ArtifactGraph
from inspect_kd.resize import RESIZE
from inspect_kd.types import Decision
from tests.cpp_program import run_program, with_changed_card
from tests.presented_artifacts import (
    SIZE,
    card_of,
    compare,
    draw_boards,
    faulty_parts,
    inspector_of,
    save_images,
    with_middle_thresholds,
    with_presentations,
)
from tests.small_models import images, small
from tests.turned_parts import random_parts
from tests.zoned_parts import FRAME, IGNORED, STRICT, picture, with_defect

CATEGORIES = ("a", "b", "c")
WHOLE, TILES, ENLARGED = View(size=SIZE), View(size=SIZE, tile=80), View(size=SIZE, tile=48, overlap=0.5)
# A star, whose outline goes through pixels at every angle, with corners between pixels.
STAR = Zone(
    "star",
    tuple(
        (75 + radius * np.cos(turn), 60 + radius * np.sin(turn))
        for turn, radius in zip(np.arange(10) * np.pi / 5, [57.3, 21.7] * 5, strict=True)
    ),
)
LENIENT = Zone("lenient", ((100.5, 2), (159.4, 30.2), (120, 119.6)), 3.0)
POLYGONS = Zones(frame=FRAME, zones=(STAR, LENIENT, STRICT), fill=(90, 20, 200))


def drawn_labels() -> Grey:
    """Every kind of label: inspected, ignored, and tolerances down to the least."""
    rng = np.random.default_rng(3)
    coarse = rng.choice(np.array([0, 0, 255, 5, 50, 99, 101, 254], np.uint8), (9, 11))
    return np.asarray(cv2.resize(coarse, FRAME, interpolation=cv2.INTER_NEAREST), np.uint8)


LABELS = Zones(frame=FRAME, labels=drawn_labels(), fill=(1, 2, 250))


def export(folder: Path, zones: Zones | None) -> Path:
    """Export an untrained student for three categories; returns its folder, in which it is `r.onnx`."""
    student = small(head_width=8)
    student.fit_statistics([images(8, size=SIZE)])
    assert student.heads is not None
    student.heads.blend_weights.copy_(torch.tensor([[2.0, 1.5, 1.5], [2.0, 0.25, 0.25]]))
    scores = list(np.linspace(0.1, 0.5, 30))
    card = ArtifactCard(
        name="r",
        target="onnx",
        size=SIZE,
        resize=RESIZE,
        categories=CATEGORIES,
        calibration=calibrate(dict.fromkeys(CATEGORIES, scores), reject_rate=0.05, reinspect_rate=0.1),
        presentations=Presentations(
            by_category=dict.fromkeys(CATEGORIES, Presentation(view=View(size=SIZE), zones=zones))
        ),
    )
    to_onnx.export(ArtifactGraph(student.eval(), scale=1.5), folder / "r.onnx", card=card, opset=20)
    return folder


@pytest.fixture(scope="module")
def zoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artifact that takes zones' weights."""
    return export(tmp_path_factory.mktemp("zoned"), POLYGONS)


@pytest.fixture(scope="module")
def unzoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("unzoned"), None)


def across(frame: tuple[int, int], fill: tuple[int, int, int] = (124, 116, 104)) -> Zones:
    """A slanted ignored strip and a strict corner, in a frame of any size."""
    width, height = frame
    strip = Zone("strip", ((0.1 * width, 0.2 * height), (0.4 * width, 0), (0.6 * width, height), (0.2 * width, height)))
    corner = Zone("corner", ((0.7 * width, 0.1 * height), (width, 0.1 * height), (width, 0.8 * height)), 0.3)
    return Zones(frame=frame, zones=(strip, corner), fill=fill)


@pytest.mark.parametrize("view", [WHOLE, TILES, ENLARGED], ids=["whole", "tiles", "enlarged tiles"])
@pytest.mark.parametrize("zones", [POLYGONS, LABELS], ids=["polygons", "labels"])
def test_zones_are_weighed_as_in_python(program: Path, zoned: Path, tmp_path: Path, view: View, zones: Zones) -> None:
    artifact = with_presentations(zoned, tmp_path / "a.onnx", Presentation(view=view, zones=zones))
    seen = [with_defect(picture(seed), *place) for seed, place in enumerate([(5, 5), (70, 50), (120, 90), (135, 20)])]
    paths = save_images(tmp_path, [picture(seed) for seed in range(12)] + seen)
    inspect = inspector_of(artifact, "a")
    with_middle_thresholds(artifact, "a", [inspect(path).score for path in paths])
    found = compare(program, artifact, paths, "a")
    assert {each.decision for each in found} == set(Decision)
    plain = with_presentations(zoned, tmp_path / "p.onnx", Presentation(view=view, zones=Zones(frame=FRAME)))
    for with_zones, without in zip(found, compare(program, plain, paths, "a"), strict=True):
        assert with_zones.score != without.score


@pytest.mark.parametrize("view", [WHOLE, ENLARGED], ids=["whole", "tiles"])
def test_defect_in_an_ignored_zone_changes_not_even_the_last_digit(
    program: Path, zoned: Path, tmp_path: Path, view: View
) -> None:
    hidden = [with_defect(picture(), 40, 45), with_defect(picture(), 21, 31), with_defect(picture(), 50, 60)]
    paths = save_images(tmp_path, [picture(), *hidden, with_defect(picture(), 120, 90)])

    def answer(*zones: Zone) -> tuple[list[dict[str, Any]], list[bytes]]:
        shown = Presentation(view=view, zones=Zones(frame=FRAME, zones=zones))
        artifact = with_presentations(zoned, tmp_path / "a.onnx", shown)
        lines, code, stderr = run_program(program, artifact, "--category", "a", "--heatmaps", tmp_path, *paths)
        assert code == 0, stderr
        answers = [{key: line[key] for key in line.keys() - {"image", "milliseconds"}} for line in lines]
        return answers, [(tmp_path / f"{number}.npy").read_bytes() for number in range(len(paths))]

    answers, heatmaps = answer(IGNORED, STRICT)
    assert answers[:4] == [answers[0]] * 4 and heatmaps[:4] == [heatmaps[0]] * 4 and heatmaps[4] != heatmaps[0]
    _, heatmaps = answer(STRICT)
    assert len(set(heatmaps)) == len(heatmaps)


@pytest.mark.parametrize("view", [WHOLE, View(size=SIZE, tile=100)], ids=["whole", "tiles"])
@pytest.mark.parametrize("method", ["silhouette", "template"])
def test_zones_of_aligned_parts_are_weighed_as_in_python(
    program: Path, zoned: Path, tmp_path: Path, view: View, method: str, request: pytest.FixtureRequest
) -> None:
    """Also parts that are not found, whose zones have no place."""
    alignment: Alignment = request.getfixturevalue(method)
    shown = Presentation(view=view, alignment=alignment, zones=across(alignment.frame))
    artifact = with_presentations(zoned, tmp_path / "a.onnx", shown)
    parts = [image for _, image in random_parts(30, seed=300)] + faulty_parts()
    paths = save_images(tmp_path, draw_boards(15, 700) + parts[:3] if method == "template" else parts)
    found = compare(program, artifact, paths, "a")
    assert sum(each.cause is None for each in found) >= 14 and any(each.cause for each in found)
    aligned = with_presentations(zoned, tmp_path / "p.onnx", replace(shown, zones=Zones(frame=alignment.frame)))
    for with_zones, without in zip(found, compare(program, aligned, paths, "a"), strict=True):
        assert (with_zones.score == without.score) == (with_zones.cause is not None)


def test_category_with_zones_beside_others_is_inspected_as_in_python(
    program: Path, zoned: Path, silhouette: Alignment, template: Alignment, tmp_path: Path
) -> None:
    """By name, and recognised: each category has its own zones or none."""
    artifact = with_presentations(
        zoned,
        tmp_path / "a.onnx",
        Presentation(view=View(size=SIZE, tile=100), alignment=silhouette, zones=across(silhouette.frame, (9, 8, 7))),
        Presentation(view=WHOLE, alignment=template),
        Presentation(view=TILES, zones=POLYGONS),
    )
    paths = save_images(tmp_path, [image for _, image in random_parts(4, seed=70)] + draw_boards(4, 70) + [picture()])
    assert [each.category for each in compare(program, artifact, paths)] == ["a"] * 4 + ["b"] * 4 + [None]
    for category, own in (("a", paths[:4]), ("b", paths[4:8]), ("c", paths[8:])):
        compare(program, artifact, own, category)


def test_categories_with_different_zones_must_be_named(program: Path, zoned: Path, tmp_path: Path) -> None:
    first, second = (Presentation(view=WHOLE, zones=zones) for zones in (POLYGONS, replace(POLYGONS, fill=(0, 0, 0))))
    path = save_images(tmp_path, [picture()])[0]
    for number, others in enumerate([[second], [Presentation(view=WHOLE)], [Presentation(view=WHOLE, zones=LABELS)]]):
        artifact = with_presentations(zoned, tmp_path / f"{number}.onnx", first, *others)
        lines, code, _ = run_program(program, artifact, path)
        assert code == 3 and lines[0]["decision"] == "NG"
        assert "have different zones: name the image's category" in lines[0]["error"]
        with pytest.raises(UsageError, match="have different zones: name the image's category"):
            inspector_of(artifact)(path)
        compare(program, artifact, [path], "b")
    for zones in (POLYGONS, LABELS):
        compare(program, with_presentations(zoned, tmp_path / "same.onnx", replace(first, zones=zones)), [path])


def test_image_of_another_size_than_the_zones_frame_is_ng(program: Path, zoned: Path, tmp_path: Path) -> None:
    artifact = with_presentations(zoned, tmp_path / "a.onnx", Presentation(view=WHOLE, zones=POLYGONS))
    paths = save_images(tmp_path, [picture(0, (100, 100)), picture()])
    lines, code, _ = run_program(program, artifact, "--category", "a", *paths)
    expected = f"{paths[0]}: 100x100 pixels; its category's zones were drawn on 160x120"
    assert code == 3 and (lines[0]["decision"], lines[0]["error"]) == ("NG", expected) and "error" not in lines[1]
    with pytest.raises(BadInput) as caught:
        inspector_of(artifact, "a")(paths[0])
    assert str(caught.value) == expected


def test_card_and_graph_that_disagree_on_zones_are_refused(
    program: Path, zoned: Path, unzoned: Path, tmp_path: Path
) -> None:
    path = save_images(tmp_path, [picture()])[0]
    plain, drawn = Presentation(view=WHOLE), Presentation(view=WHOLE, zones=POLYGONS)
    for number, (folder, wrong, right) in enumerate([(zoned, plain, drawn), (unzoned, drawn, plain)]):
        artifact = with_presentations(folder, tmp_path / f"{number}.onnx", wrong)
        reason = f"not those of an inspect-kd artifact of size 64{' with zones' if wrong.zones else ''}"
        lines, code, stderr = run_program(program, artifact, path)
        assert (lines, code) == ([], 3) and stderr.endswith(f"{reason}\n"), stderr
        with pytest.raises(BadInput, match=f"{reason}$"):
            inspector_of(artifact)
        compare(program, with_presentations(folder, artifact, right), [path], "a")


Change = Callable[[dict[str, Any]], object]


def with_zone(**changes: Any) -> Change:
    """Change the first zone; a key that becomes None is left out."""

    def change(zones: dict[str, Any]) -> None:
        zone = zones["zones"][0] | changes
        zones["zones"][0] = {key: value for key, value in zone.items() if value is not None}

    return change


def with_labels(labels: object) -> Change:
    """A label picture, or what stands in its place, instead of polygons."""

    def change(zones: dict[str, Any]) -> None:
        del zones["zones"]
        zones["labels"] = encode(labels) if isinstance(labels, np.ndarray) else labels

    return change


def encode(labels: Grey) -> str:
    return base64.b64encode(cv2.imencode(".png", labels)[1].tobytes()).decode()


def png_with_fewer_rows(rows: int) -> str:
    """A PNG of the frame's size whose pixels end early, with valid checksums."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", *FRAME, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((FRAME[0] + 1) * rows))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return base64.b64encode(content).decode()


def labelled(*values: int) -> Grey:
    labels = np.zeros(FRAME[::-1], np.uint8)
    labels[0, : len(values)] = values
    return labels


def polygon(*corners: Sequence[float]) -> Change:
    return with_zone(polygon=[list(corner) for corner in corners])


WHOLE_FRAME = [[0, 0], [160, 0], [160, 120], [0, 120]]
DAMAGED: dict[str, tuple[Change, str]] = {
    "another field": (lambda zones: zones.update(more=1), "damaged"),
    "no frame": (lambda zones: zones.pop("frame"), "damaged"),
    "no colour": (lambda zones: zones.pop("fill"), "damaged"),
    "neither polygons nor labels": (lambda zones: zones.pop("zones"), "damaged"),
    "polygons and labels": (lambda zones: zones.update(labels=encode(labelled())), "damaged"),
    "an empty frame": (lambda zones: zones.update(frame=[0, 120]), "impossible frame"),
    "a long frame": (lambda zones: zones.update(frame=[2**15 + 1, 1]), "impossible frame"),
    "a wrapped frame": (lambda zones: zones.update(frame=[2**32 + 160, 120]), "impossible frame"),
    "a huge frame": (lambda zones: zones.update(frame=[2**15, 2**15]), "impossible frame"),
    "a frame with a fraction": (lambda zones: zones.update(frame=[160.0, 120]), "impossible frame"),
    "a frame of truth": (lambda zones: zones.update(frame=[True, 120]), "impossible frame"),
    "a frame of one side": (lambda zones: zones.update(frame=[160]), "impossible frame"),
    "a frame of text": (lambda zones: zones.update(frame="160x120"), "impossible frame"),
    "a bright colour": (lambda zones: zones.update(fill=[0, 0, 256]), "impossible colour"),
    "a negative colour": (lambda zones: zones.update(fill=[-1, 0, 0]), "impossible colour"),
    "half a colour": (lambda zones: zones.update(fill=[0.5, 0, 0]), "impossible colour"),
    "two colours": (lambda zones: zones.update(fill=[0, 0]), "impossible colour"),
    "zones that are no list": (lambda zones: zones.update(zones=7), "damaged"),
    "too many zones": (lambda zones: zones.update(zones=zones["zones"] * 201), "damaged|at most 200"),
    "a zone that is a number": (lambda zones: zones.update(zones=[7]), "a zone is 7; expected `name`"),
    "no name": (with_zone(name=None), "a zone is called (None|null); give each zone a `name`"),
    "an empty name": (with_zone(name=""), "a zone is called (''|\"\"); give each zone a `name`"),
    "a name that is a number": (with_zone(name=7), "a zone is called 7; give each zone a `name`"),
    "a name of two lines": (with_zone(name="x\n"), "give each zone a `name` of at most 100 printable"),
    "a long name": (with_zone(name="ö" * 101), "give each zone a `name` of at most 100 printable"),
    "a name given twice": (lambda zones: zones.update(zones=zones["zones"] * 2), "two zones are called 'label'"),
    "an unknown key": (with_zone(colour="red"), "zone 'label': unknown key 'colour'"),
    "no polygon": (with_zone(polygon=None), "zone 'label': a polygon of 0 points; it needs 3 to 500"),
    "two points": (polygon((0, 0), (50, 50)), "zone 'label': a polygon of 2 points; it needs 3 to 500"),
    "too many points": (polygon(*[(1, 1)] * 501), "zone 'label': a polygon of 501 points; it needs 3 to 500"),
    "a polygon that is text": (with_zone(polygon="abc"), "zone 'label': a polygon of 0 points; it needs 3 to 500"),
    "a point of text": (polygon((0, 0), (50, "x"), (20, 20)), "zone 'label': the point .* is not \\[x, y\\]"),  # type: ignore[arg-type]
    "a point of truth": (polygon((0, 0), (50, True), (20, 20)), "zone 'label': the point .* is not \\[x, y\\]"),
    "a point of three": (polygon((0, 0), (50, 1, 1), (20, 20)), "zone 'label': the point .* is not \\[x, y\\]"),
    "a point right of the frame": (polygon((9, 9), (160.5, 9), (9, 80)), "lies outside the frame of 160x120 pixels"),
    "a point above the frame": (polygon((9, -0.5), (100, 9), (9, 80)), "lies outside the frame of 160x120 pixels"),
    "a point far away": (polygon((9, 9), (1e99, 9), (9, 80)), "lies outside the frame of 160x120 pixels"),
    "an outline that crosses itself": (polygon((0, 0), (50, 50), (50, 0), (0, 50)), "its outline crosses itself"),
    "a polygon without area": (polygon((0, 0), (50, 50), (20, 20)), "zone 'label': its polygon has no area"),
    "a zone over all": (with_zone(polygon=WHOLE_FRAME), "the zones ignore the whole frame: 0.0 % of it"),
    "neither ignored nor tolerated": (with_zone(ignore=None), "give it either `ignore: true` or a `tolerance`"),
    "not ignored": (with_zone(ignore=False), "give it either `ignore: true` or a `tolerance`"),
    "ignored and tolerated": (with_zone(tolerance=0.5), "give it either `ignore: true` or a `tolerance`"),
    "an ignore of 1": (with_zone(ignore=1), "zone 'label': ignore is 1; write true or false"),
    "a tolerance of 0": (with_zone(ignore=None, tolerance=0), "tolerance 0 is not a number from 0.05 to 4"),
    "a large tolerance": (with_zone(ignore=None, tolerance=4.1), "tolerance 4.1 is not a number from 0.05 to 4"),
    "a tolerance of text": (with_zone(ignore=None, tolerance="1"), "is not a number from 0.05 to 4"),
    "a tolerance of truth": (with_zone(ignore=None, tolerance=True), "is not a number from 0.05 to 4"),
    "labels that are a number": (with_labels(7), "damaged"),
    "labels not in base 64": (with_labels("%%%"), "the zones' label picture is not in base 64"),
    "labels that are no PNG": (with_labels("aGVsbG8="), "is no grey PNG of 160x120 pixels"),
    "long labels": (with_labels("A" * (2**21 + 4)), "damaged|the limit is"),
    "labels of another size": (with_labels(np.zeros((160, 120), np.uint8)), "is no grey PNG of 160x120 pixels"),
    "labels in colour": (with_labels(np.zeros((120, 160, 3), np.uint8)), "is no grey PNG of 160x120 pixels"),
    "labels of 16 bits": (with_labels(np.zeros((120, 160), np.uint16)), "is no grey PNG of 160x120 pixels"),
    "half a label picture": (with_labels(encode(drawn_labels())[:200]), "damaged|broken or truncated"),
    "labels that end early": (with_labels(png_with_fewer_rows(60)), "damaged|broken or truncated"),
    "labels with a second image": (
        with_labels(base64.b64encode(base64.b64decode(encode(labelled())) * 2).decode()),
        "after the end of the PNG",
    ),
    "a label of 3 hundredths": (with_labels(labelled(7, 3, 4, 255)), "the label picture has the value 3"),
    "labels that ignore all": (with_labels(np.full(FRAME[::-1], 255, np.uint8)), "the zones ignore the whole frame"),
}


def assert_refused_by_both(program: Path, artifact: Path, image: Path, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        card_of(artifact)
    lines, code, stderr = run_program(program, artifact, image)
    # libpng may have written a line of its own before.
    last_line = stderr.splitlines()[-1]
    assert (lines, code) == ([], 3) and last_line.startswith(f"{artifact}: ") and re.search(reason, last_line), stderr


def with_changed_zones(artifact: Path, to: Path, change: Change) -> Path:
    presentations = card_of(artifact).presentations
    assert presentations is not None
    content = json.loads(json.dumps(presentations.to_json()))
    change(content["b"]["zones"])
    return with_changed_card(artifact, to, presentations=content)


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_zones_are_refused_by_both(program: Path, zoned: Path, tmp_path: Path, name: str) -> None:
    change, reason = DAMAGED[name]
    shown = Presentation(view=WHOLE, zones=Zones(frame=FRAME, zones=(IGNORED,)))
    artifact = with_presentations(zoned, tmp_path / "a.onnx", shown)
    damaged = with_changed_zones(artifact, tmp_path / "damaged.onnx", change)
    assert_refused_by_both(program, damaged, save_images(tmp_path, [picture()])[0], reason)


def test_zones_that_are_no_object_are_refused_by_both(program: Path, zoned: Path, tmp_path: Path) -> None:
    content = {name: Presentation(view=WHOLE).to_json() for name in CATEGORIES}
    path = save_images(tmp_path, [picture()])[0]
    for wrong in (None, [], 7, "label"):
        presentations = content | {"b": content["b"] | {"zones": wrong}}
        damaged = with_changed_card(zoned / "r.onnx", tmp_path / "damaged.onnx", presentations=presentations)
        assert_refused_by_both(program, damaged, path, "damaged")


def test_zones_in_another_frame_than_the_alignments_are_refused_by_both(
    program: Path, zoned: Path, silhouette: Alignment, tmp_path: Path
) -> None:
    width, height = silhouette.frame
    shown = Presentation(view=WHOLE, alignment=silhouette, zones=across((width, height)))
    artifact = with_presentations(zoned, tmp_path / "a.onnx", shown)
    damaged = with_changed_zones(artifact, artifact, lambda zones: zones.update(frame=[width + 1, height]))
    image = save_images(tmp_path, [random_parts(1)[0][1]])[0]
    assert_refused_by_both(program, damaged, image, "a category's zones have another frame than its alignment")


def test_largest_and_smallest_zones_are_accepted_by_both(program: Path, zoned: Path, tmp_path: Path) -> None:
    """At each limit, so that neither program refuses what the other accepts."""
    rim: list[tuple[float, float]] = [(0.25 * step, 0) for step in range(499)] + [(60.0, 90.0)]
    small_triangle = ((0.0, 0.0), (2.0, 0.0), (0.0, 1.0))
    many = [Zone(f"{number}", small_triangle, 4.0) for number in range(198)]
    zones = Zones(frame=FRAME, zones=(Zone("ö" * 100, tuple(rim)), Zone("strict", small_triangle, 0.05), *many))
    paths = save_images(tmp_path, [picture(), picture(1)])
    for each in (zones, Zones(frame=FRAME), Zones(frame=FRAME, labels=labelled(5, 254, 255, 100))):
        shown = Presentation(view=WHOLE, zones=each)
        compare(program, with_presentations(zoned, tmp_path / "a.onnx", shown), paths, "a")
