"""Advice on sound pictures: drawn pictures with a problem get the advice on it, and others do not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from inspect_kd.cli import app
from inspect_kd.config import CalibrationConfig, Data, load_recipe
from inspect_kd.datasets import open_dataset
from inspect_kd.datasets.advice import (
    TOPICS,
    Advice,
    SoundPicture,
    advise,
    advise_on_pictures,
    choose_samples,
    measure_picture,
)
from inspect_kd.datasets.fit_presentation import choose_presentation
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.datasets.tile_choice import choose_tile
from inspect_kd.types import ImageU8, NoProgress, Sample, Split

PARTS, SIDE = 100, 320
CATEGORY = "bracket"
BLUE, RED = (40, 70, 150), (150, 60, 50)
Draw = Callable[[int], ImageU8]


def bracket(
    part: int,
    *,
    shot: int = 0,
    angle: float = 0.0,
    shift: tuple[float, float] = (0, 0),
    size: float = 1.0,
    light: float = 1.0,
    colour: tuple[int, int, int] = BLUE,
    blur: float = 0.0,
    stretch: float = 1.0,
) -> ImageU8:
    """Draw a bracket with the grain of one physical part on a plain background; `shot` seeds the noise of the camera."""
    grain = np.random.default_rng([part, 1]).normal(0, 14, (160, 160)).astype(np.float32)
    half = np.array([120 * stretch, 85]) * size
    outline = np.array([[-1, -1], [1, -1], [1, 0.2], [0.1, 0.2], [0.1, 1], [-1, 1]]) * half
    radians = np.radians(angle)
    matrix = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    middle = np.array([SIDE / 2, SIDE / 2]) + np.array(shift) * SIDE
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(mask, [np.round(outline @ matrix.T + middle).astype(np.int32)], 255)
    surface = cv2.warpAffine(
        cv2.resize(grain, (SIDE, SIDE)),
        cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), -angle, 1.0)
        + np.array([[0, 0, shift[0] * SIDE], [0, 0, shift[1] * SIDE]]),
        (SIDE, SIDE),
        borderMode=cv2.BORDER_REFLECT,
    )
    picture = np.full((SIDE, SIDE, 3), 200, np.float32)
    picture[mask > 0] = np.array(colour, np.float32) + surface[mask > 0][:, None]
    noise = np.random.default_rng([part, shot, 2]).normal(0, 3, picture.shape)
    picture = picture * light + noise
    if blur:
        picture = cv2.GaussianBlur(picture, (0, 0), blur)
    return np.asarray(picture.clip(0, 255), np.uint8)


def jitter(part: int) -> dict[str, object]:
    """Angle and shift of a part in a good fixture: small ones."""
    rng = np.random.default_rng([part, 3])
    return {"angle": float(rng.normal(0, 1)), "shift": (float(rng.normal(0, 0.005)), float(rng.normal(0, 0.005)))}


@cache
def steady(part: int) -> ImageU8:
    return bracket(part, **jitter(part))  # type: ignore[arg-type]


def measure_drawn(draw: Draw, count: int = PARTS, names: Sequence[str] = (), held_out: int = 5) -> list[SoundPicture]:
    """Measure drawn pictures, of which every `held_out`-th one is held out for the thresholds."""
    return [
        measure_picture(
            Sample(
                image=Path(f"{names[i] if names else f'{i:03d}'}.png"),
                category=CATEGORY,
                split=Split.CALIBRATION if i % held_out == 0 else Split.TRAIN,
            ),
            draw(i),
        )
        for i in range(count)
    ]


def advice_on(
    pictures: Sequence[SoundPicture],
    settings: Data | None = None,
    presentations: Presentations | None = None,
    **options: bool,
) -> dict[str, Advice]:
    """Return the advice by its topic."""
    found = advise_on_pictures(
        CATEGORY,
        [picture.sample for picture in pictures],
        pictures,
        settings or Data(),
        CalibrationConfig(),
        presentations=presentations,
        **options,
    )
    assert len({each.topic for each in found}) == len(found)
    return {each.topic: each for each in found}


def random_of(part: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([part, seed])


# ── sound sets ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_steady_pictures_get_no_advice() -> None:
    assert advice_on(measure_drawn(steady)) == {}


def test_bottle_gets_no_advice(real_data: Path) -> None:
    data = open_dataset(real_data / "mvtec_ad")
    assert advise(data, Data(), CalibrationConfig(), NoProgress()) == []


# ── pose and background ────────────────────────────────────────────────────────────────────────────────────────────


@cache
def turned(part: int) -> ImageU8:
    return bracket(part, angle=float(random_of(part, 4).uniform(0, 360)), size=0.7)


def test_turned_parts_need_no_change_where_training_aligns_them() -> None:
    pose = advice_on(measure_drawn(turned))["pose"]
    assert pose.done and pose.command("parts") is None
    assert pose.number > 60 and "aligns them by itself" in pose.remedy


def test_turned_parts_call_for_alignment_where_it_is_switched_off() -> None:
    pose = advice_on(measure_drawn(turned), Data(align="none"))["pose"]
    assert not pose.done and pose.command("my parts/") == "inspect-kd train --data 'my parts/' --set data.align=auto"


def test_shifted_parts_get_advice_on_their_pose() -> None:
    def shifted(part: int) -> ImageU8:
        return bracket(part, shift=tuple(random_of(part, 5).uniform(-0.15, 0.15, 2)), size=0.5)  # type: ignore[arg-type]

    pose = advice_on(measure_drawn(shifted), Data(align="none"))["pose"]
    assert 0.1 < pose.number < 0.16 and "hardly turned" in pose.text


def test_advice_names_pictures_without_a_part() -> None:
    def sometimes_empty(part: int) -> ImageU8:
        return bracket(part, size=0.01) if part % 20 == 7 else turned(part)

    pose = advice_on(measure_drawn(sometimes_empty))["pose"]
    assert not pose.done and {file.stem for file in pose.files} == {"007", "027", "047", "067", "087"}
    assert "no part on the background" in pose.remedy


def test_small_part_in_a_steady_pose_calls_for_a_crop() -> None:
    def small(part: int) -> ImageU8:
        return bracket(part, size=0.4, **jitter(part))  # type: ignore[arg-type]

    background = advice_on(measure_drawn(small))["background"]
    assert background.number < 0.2 and background.changes == ("--set", "data.align=silhouette")


def test_background_that_training_crops_gets_no_advice() -> None:
    def small(part: int) -> ImageU8:
        return bracket(part, size=0.4, **jitter(part))  # type: ignore[arg-type]

    presentation = choose_presentation([small(i) for i in range(20)], Data(align="silhouette"), whole_images=False)
    assert "background" not in advice_on(
        measure_drawn(small), presentations=Presentations(by_category={CATEGORY: presentation})
    )


def test_textures_get_no_advice_on_pose() -> None:
    def texture(part: int) -> ImageU8:
        return np.asarray(random_of(part, 6).normal(120, 20, (SIDE, SIDE, 3)).clip(0, 255), np.uint8)

    assert advice_on(measure_drawn(texture), Data(align="none")) == {}


# ── scale ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def enlarged(width: int, height: int) -> Draw:
    """Return a function that draws the steady bracket at this size, with fine noise."""
    return lambda part: (
        cv2.resize(steady(part), (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        ^ (random_of(part, 7).integers(0, 4, (height, width, 3), dtype=np.uint8))
    )


def test_advice_reports_tiles_that_training_chooses_as_done() -> None:
    scale = advice_on(measure_drawn(enlarged(400, 1000), count=6, held_out=1))["scale"]
    expected = choose_tile((400, 1000), 256, 0.25, None)
    assert scale.done and f"tiles of {expected.tile}" in scale.remedy and f"{expected.frames} frames" in scale.remedy


def test_a_defect_that_vanishes_calls_for_tiles_where_they_are_switched_off() -> None:
    pictures = measure_drawn(enlarged(400, 1000), count=6, held_out=1)
    scale = advice_on(pictures, Data(tile=None, smallest_defect=9))["scale"]
    tile = choose_tile((400, 1000), 256, 0.25, 9).tile
    assert scale.number == pytest.approx(9 * 256 / 1000) and scale.changes == ("--set", f"data.tile={tile}")
    assert "scale" not in advice_on(pictures, Data(tile=tile, smallest_defect=9)), "the remedy is one"


def test_a_defect_that_vanishes_calls_for_a_larger_input_where_teachers_need_whole_images() -> None:
    pictures = measure_drawn(enlarged(400, 1000), count=6, held_out=1)
    scale = advice_on(pictures, Data(smallest_defect=9), whole_images=True)["scale"]
    size = int(scale.command("parts").removeprefix("inspect-kd train --data parts --set data.size="))  # type: ignore[union-attr]
    assert load_recipe("embedded", [f"data.size={size}"]).data.size == size
    assert "scale" not in advice_on(pictures, Data(smallest_defect=9, size=size, tile=None))


def test_long_pictures_call_for_tiles() -> None:
    scale = advice_on(measure_drawn(enlarged(128, 480), count=6, held_out=1), Data(smallest_defect=10))["scale"]
    assert scale.number == pytest.approx(480 / 128) and scale.changes == ("--set", "data.tile=128")


# ── light and blur ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_unsteady_light_is_measured() -> None:
    def lit(part: int) -> ImageU8:
        return bracket(part, light=float(random_of(part, 8).uniform(0.6, 1.2)), **jitter(part))  # type: ignore[arg-type]

    light = advice_on(measure_drawn(lit))["light"]
    assert 1.4 < light.number < 1.8 and light.picture is not None


def test_little_flicker_gets_no_advice() -> None:
    def lit(part: int) -> ImageU8:
        return bracket(part, light=float(random_of(part, 8).uniform(0.95, 1.05)), **jitter(part))  # type: ignore[arg-type]

    assert advice_on(measure_drawn(lit)) == {}


def test_advice_names_blurred_pictures() -> None:
    def sometimes_blurred(part: int) -> ImageU8:
        return bracket(part, blur=2.5 if part in (3, 50) else 0, **jitter(part))  # type: ignore[arg-type]

    blur = advice_on(measure_drawn(sometimes_blurred))["blur"]
    assert blur.number == 2 and {file.stem for file in blur.files} == {"003", "050"}


def test_dark_pictures_get_no_advice_on_blur() -> None:
    assert "blur" not in advice_on(measure_drawn(lambda part: bracket(part, light=0.4)))


def test_blur_of_every_picture_calls_for_focusing_the_camera() -> None:
    blur = advice_on(measure_drawn(lambda part: bracket(part, blur=2.5, **jitter(part))))["blur"]  # type: ignore[arg-type]
    assert blur.number == PARTS and not blur.files and "focus" in blur.remedy


# ── few parts ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("count", "changes"), [(18, ()), (60, ("--set", "data.calibration=0.32"))])
def test_few_parts_get_advice_with_the_rate_they_can_promise(count: int, changes: tuple[str, ...]) -> None:
    few = advice_on(measure_drawn(steady, count=count))["few parts"]
    held_out = -(-count // 5)
    assert few.number == pytest.approx(100 / (held_out + 1)) and few.changes == changes
    assert "95 sound parts" in few.remedy


# ── several products ───────────────────────────────────────────────────────────────────────────────────────────────


def test_products_of_two_colours_are_distinguished() -> None:
    def coloured(part: int) -> ImageU8:
        return bracket(part, colour=RED if part % 3 == 0 else BLUE, **jitter(part))  # type: ignore[arg-type]

    products = advice_on(measure_drawn(coloured))["products"]
    assert products.number == 2 and "by colour (66, 34 pictures)" in products.text


def test_products_of_two_outlines_are_distinguished_at_any_angle() -> None:
    def shaped(part: int) -> ImageU8:
        angle = float(random_of(part, 9).uniform(0, 360))
        return bracket(part, angle=angle, size=0.7, stretch=1.3 if part < 40 else 1.0)

    assert "by outline (60, 40 pictures)" in advice_on(measure_drawn(shaped))["products"].text


def test_products_of_two_layouts_are_distinguished() -> None:
    def board(part: int) -> ImageU8:
        layout = random_of(part % 2, 10)
        picture = np.full((SIDE, SIDE, 3), 140, np.uint8)
        for x, y in layout.integers(10, SIDE - 60, (25, 2)):
            cv2.rectangle(picture, (int(x), int(y)), (int(x) + 45, int(y) + 25), (60, 60, 60), -1)
        noise = random_of(part, 11).normal(0, 5, picture.shape)
        return np.asarray((picture + noise).clip(0, 255), np.uint8)

    assert "by structure (50, 50 pictures)" in advice_on(measure_drawn(board))["products"].text


def test_colours_that_vary_without_a_gap_are_one_product() -> None:
    def coloured(part: int) -> ImageU8:
        share = part / PARTS
        colour = tuple(int(share * a + (1 - share) * b) for a, b in zip(RED, BLUE, strict=True))
        return bracket(part, colour=colour, **jitter(part))  # type: ignore[arg-type]

    assert "products" not in advice_on(measure_drawn(coloured))


def test_one_board_in_two_lights_is_one_product() -> None:
    layout = np.random.default_rng(12).integers(10, SIDE - 60, (25, 2))

    def board(part: int) -> ImageU8:
        picture = np.full((SIDE, SIDE, 3), (110, 130, 120), np.float32)
        for x, y in layout:
            cv2.rectangle(picture, (int(x), int(y)), (int(x) + 45, int(y) + 25), (60, 60, 60), -1)
        cast = np.array([1.0, 1.0, 1.0] if part % 2 else [1.1, 1.0, 0.75])
        return np.asarray((picture * cast + random_of(part, 13).normal(0, 5, picture.shape)).clip(0, 255), np.uint8)

    assert "products" not in advice_on(measure_drawn(board))


# ── series ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def pattern_of(advice: Advice) -> str:
    """Return the pattern for groups that a recipe gets from the advised `--set` option."""
    assert advice.changes is not None
    return str(load_recipe("embedded", [advice.changes[1]]).data.group)


def test_three_shots_of_each_part_are_found_by_likeness_and_grouped_by_their_numbers() -> None:
    def shot(number: int) -> ImageU8:
        part, repeat = divmod(number, 3)
        return bracket(part, shot=repeat, light=1 - 0.04 * repeat, **jitter(part))  # type: ignore[arg-type]

    names = [f"line2_{1000 * (number // 3) + 40 * (number % 3) + 120000}" for number in range(99)]
    series = advice_on(measure_drawn(shot, count=99, names=names))["series"]
    assert series.number > 80 and len(series.files) == series.number
    groups = [re.search(pattern_of(series), name)[1] for name in names]  # type: ignore[index]
    assert all(groups[i] == groups[i + 1] for i in range(98) if i % 3 < 2) and len(set(groups)) == 33


def test_shots_of_one_part_that_are_grouped_already_get_no_advice() -> None:
    pictures = measure_drawn(lambda number: bracket(number // 3, shot=number % 3, **jitter(number // 3)), count=99)  # type: ignore[arg-type]
    grouped = [replace(p, sample=replace(p.sample, group=str(i // 3))) for i, p in enumerate(pictures)]
    assert "series" in advice_on(pictures) and "series" not in advice_on(grouped)


def test_shots_whose_file_names_do_not_show_the_part_call_for_a_list() -> None:
    order = np.random.default_rng(14).permutation(99)

    def shot(number: int) -> ImageU8:
        part, repeat = divmod(int(order[number]), 3)
        return bracket(part, shot=repeat, **jitter(part))  # type: ignore[arg-type]

    series = advice_on(measure_drawn(shot, count=99))["series"]
    assert series.command("parts") is None and not series.done and "CSV" in series.remedy


def test_views_that_file_names_repeat_for_every_part_are_a_series() -> None:
    names = [f"{'AB'[part % 2]}-{part:02d}_{view}" for part in range(25) for view in ("top", "left", "right", "back")]
    series = advice_on(measure_drawn(steady, names=names))["series"]
    assert series.number == 25
    assert [re.search(pattern_of(series), name)[1] for name in names[:4]] == ["A-00"] * 4  # type: ignore[index]


@pytest.mark.parametrize("name", ["{0:03d}", "2026-11-{1:02d}_{0:05d}", "part_{0}", "{0}_ok"])
def test_consecutive_numbers_are_no_series(name: str) -> None:
    names = [name.format(number, 1 + number // 50) for number in range(PARTS)]
    assert advice_on(measure_drawn(steady, names=names)) == {}


# ── check, report and training ──────────────────────────────────────────────────────────────────────────────────────


def test_pictures_are_chosen_in_runs_of_neighbours_over_the_whole_set() -> None:
    samples = [Sample(image=Path(f"{number:05d}.png"), category=CATEGORY) for number in range(5000)]
    numbers = [int(sample.image.stem) for sample in choose_samples(samples[::-1])]
    assert len(set(numbers)) == 300 and numbers[0] == 0 and numbers[-1] == 4999
    assert all(numbers[i + 9] - numbers[i] == 9 for i in range(0, 300, 10))


def write_data_set(root: Path, draw: Draw, count: int) -> Path:
    folder = root / CATEGORY / "train" / "good"
    folder.mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:03d}.png"), draw(number)[:, :, ::-1])
    return root


def test_check_prints_the_advice_with_its_command(tmp_path: Path) -> None:
    root = write_data_set(tmp_path / "my parts", turned, 12)
    (root / CATEGORY / "train" / "good" / "torn.png").write_bytes(b"\x89PNG torn")
    result = CliRunner().invoke(app, ["data", "check", str(root)])
    lines = result.stdout.splitlines()
    assert any(line.startswith(f"→ {CATEGORY}: 10 sound parts") for line in lines), result.stdout
    assert f"    inspect-kd train --data '{root}'" in lines
    assert any(line.startswith(f"• {CATEGORY}: nine in ten parts are turned") for line in lines)


def test_check_lists_the_advice_as_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["data", "check", str(write_data_set(tmp_path, turned, 12)), "--json"])
    advice = {each["topic"]: each for each in json.loads(result.stdout)["advice"]}
    assert set(advice) == {"pose", "few parts"} <= {*TOPICS}
    assert advice["pose"]["done"] and advice["pose"]["command"] is None
    assert advice["few parts"]["command"].startswith("inspect-kd train --data ") and advice["few parts"]["number"] > 20


def test_the_report_of_a_run_shows_the_advice(run: Path) -> None:
    advice = json.loads((run / "report.json").read_text())["advice"]
    categories = {each["category"] for each in advice if each["topic"] == "few parts"}
    assert categories == {"board", "bottle", "fabric", "metal"} and not any(each["done"] for each in advice)
    section = (run / "report.html").read_text().split("What the pictures are like")[1].split("<h2>")[0]
    assert section.count("<img") == len(advice) and "inspect-kd train --data sample" in section


def test_training_notes_its_advice_before_it_begins(parts: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["train", "--data", str(parts), "--model", "embedded", "--out", str(tmp_path), "--dry-run", "--json"]
    )
    assert result.exit_code == 0, result.output
    advice = json.loads(result.stdout)["advice"]
    notes = [json.loads(line)["say"] for line in result.stderr.splitlines() if line.startswith('{"say"')]
    assert advice and all(any(each["text"] in note and each["command"] in note for note in notes) for each in advice)


def test_every_advice_has_a_small_picture() -> None:
    def poor(part: int) -> ImageU8:
        lit = float(random_of(part, 8).uniform(0.6, 1.2))
        return bracket(part // 2, shot=part, light=lit, blur=2.5 if part == 3 else 0)

    advice = advice_on(measure_drawn(poor, count=40))
    assert {"light", "blur", "few parts", "series"} <= advice.keys()
    for each in advice.values():
        assert each.picture is not None and each.picture.dtype == np.uint8 and each.picture.ndim == 3
        assert max(each.picture.shape) < 1000, each.topic


def measure_array(array: npt.NDArray[np.uint8]) -> SoundPicture:
    return measure_picture(Sample(image=Path("a.png"), category=CATEGORY), array)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 4000, 3), (64, 64, 3)])
def test_pictures_of_any_shape_are_measured(shape: tuple[int, int, int]) -> None:
    picture = measure_array(np.full(shape, 128, np.uint8))
    assert picture.detail == 0 and advice_on([picture] * 3).keys() <= {"few parts", "scale"}
