"""Layouts, splits and manifests; every layout in the package is tested."""

from __future__ import annotations

import shutil
import tracemalloc
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspect_kd import registry, zoo
from inspect_kd.datasets import layouts, list_samples, open_dataset
from inspect_kd.datasets.check import check
from inspect_kd.datasets.layouts import _walk
from inspect_kd.datasets.manifest import load_manifest
from inspect_kd.datasets.splits import Holdout
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.types import NoProgress, Split
from tests import trees


def test_every_layout_has_a_tree_builder() -> None:
    assert set(registry.names("datasets.layouts")) == set(trees.BUILDERS) == set(layouts.ORDER)


@pytest.mark.parametrize("name", layouts.ORDER)
def test_layout_is_recognised_and_scanned(name: str, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    root = trees.BUILDERS[name](tmp_path / "parts")
    assert layouts.recognise(root) == name
    data = open_dataset(root)
    defective_samples = [sample for sample in data.samples if sample.defective]
    assert len(defective_samples) == (0 if name == "sound_only" else 3)
    assert all(
        sample.split is Split.TEST and sample.mask is not None and sample.mask.is_file() for sample in defective_samples
    )
    assert all(sample.image.is_file() for sample in data.samples)
    assert all(len(data.select(split)) >= 1 for split in (Split.TRAIN, Split.CALIBRATION, Split.VALIDATION, Split.TEST))
    assert open_dataset(root).digest == data.digest


def test_one_category_of_an_mvtec_tree_is_a_data_set(tmp_path: Path) -> None:
    trees.mvtec(tmp_path)
    assert open_dataset(tmp_path / "screw").categories == ["screw"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], "0 images and 0 folders"),
        (["scratch/1.png", "dents/2.png"], "no layout recognised"),
        (["bad_1.png", "2.png"], "no layout recognised"),
        (["1.png", "more/2.png"], "no layout recognised"),
    ],
)
def test_ambiguous_folder_is_refused(tmp_path: Path, files: list[str], reason: str) -> None:
    for file in files:
        trees.picture(tmp_path / file)
    with pytest.raises(BadInput, match=reason):
        open_dataset(tmp_path)


def test_three_sound_images_are_refused(tmp_path: Path) -> None:
    for i in range(3):
        trees.picture(tmp_path / "good" / f"{i}.png")
    with pytest.raises(BadInput, match="has 3 sound parts for training; at least 5"):
        open_dataset(tmp_path)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    outside = trees.picture(tmp_path / "outside.png")
    root = trees.sound_only(tmp_path / "parts")
    (root / "link.png").symlink_to(outside)
    with pytest.raises(BadInput, match="leads out of the data set"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("file,label\nx.png,good\n", "needs the columns image and label"),
        ("image,label,split\nx.png,,\n", "line 2: no label"),
        ("image,label,split\nx.png,broken,train\n", "cannot be in the split train"),
    ],
)
def test_bad_csv_is_refused_with_the_reason(table: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table)
    with pytest.raises(BadInput, match=reason):
        open_dataset(tmp_path / "a.csv")


def test_splits_are_stable_and_do_not_depend_on_the_path(tmp_path: Path) -> None:
    root = trees.folder(tmp_path / "a" / "parts")
    for i in range(40):
        trees.picture(root / "OK" / f"more{i}.png")
    shutil.copytree(root, tmp_path / "b" / "parts")
    before = {s.image.name: s.split for s in open_dataset(root).samples}
    assert {s.image.name: s.split for s in open_dataset(tmp_path / "b" / "parts").samples} == before
    trees.picture(root / "OK" / "new.png")
    after = {s.image.name: s.split for s in open_dataset(root).samples}
    moved_names = [name for name, split in before.items() if after[name] is not split]
    assert len(moved_names) <= 2
    with_other_seed = {s.image.name: s.split for s in open_dataset(root, holdout=Holdout(seed=1)).samples}
    assert with_other_seed != after


def test_groups_are_not_divided_between_splits(tmp_path: Path) -> None:
    for part in range(12):
        for shot in range(3):
            trees.picture(tmp_path / "good" / f"part{part}_shot{shot}.png")
    trees.picture(tmp_path / "dent" / "part3_shot9.png")
    data = open_dataset(tmp_path, group=r"part(\d+)_")
    splits_by_group: dict[str, set[Split]] = {}
    for sample in data.samples:
        assert sample.group is not None and sample.split is not None
        splits_by_group.setdefault(sample.group, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in splits_by_group.values())
    # All images of the part with a dent are in the test.
    assert splits_by_group["3"] == {Split.TEST}


def test_all_manifests_load_and_have_a_licence() -> None:
    names = set(zoo.names("datasets"))
    assert names == {"sample", "mvtec", "visa", "btad", "mpdd", "kolektor", "mvtec_ad2", "magnetic_tile"}
    for name in names:
        manifest = load_manifest(name)
        assert manifest.name == name and manifest.licence.name
        assert manifest.layout in layouts.ORDER
        assert manifest.licence.commercial == (name in {"sample", "visa"})


@pytest.mark.parametrize(
    ("name", "error", "advice"),
    [
        ("mvtec", EnvironmentFault, "inspect-kd data get mvtec"),
        ("mvtek", UsageError, "Did you mean 'mvtec'"),
        ("does/not/exist", BadInput, "no such folder"),
    ],
)
def test_missing_data_set_has_an_error_with_advice(
    name: str, error: type[Exception], advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSPECT_KD_DATA", str(tmp_path))
    with pytest.raises(error, match=advice):
        open_dataset(name)


def test_unknown_category_is_refused(tmp_path: Path) -> None:
    trees.mvtec(tmp_path)
    with pytest.raises(UsageError, match="no category nut; there are: screw"):
        open_dataset(tmp_path, categories=["nut"])


def test_real_data_sets_are_scanned_and_split_by_group(real_data: Path) -> None:
    bottle = open_dataset(real_data / "mvtec_ad")
    assert Counter(s.kind for s in bottle.select(Split.TEST))["contamination"] == 21
    tile = open_dataset(real_data / "magnetic_tile", group=r"num_(\d+)")
    train = {s.group for s in tile.select(Split.TRAIN)}
    held_out = {s.group for split in (Split.CALIBRATION, Split.VALIDATION, Split.TEST) for s in tile.select(split)}
    assert not train & held_out


def test_images_sorted_by_kind_are_defective_with_and_without_a_mask(tmp_path: Path) -> None:
    """A mask beside some of the images must not make the others sound."""
    for name in ("scratch/1", "scratch/1_mask", "scratch/2", "dent/3", "ground_truth/dent/3_mask"):
        (trees.mask if name.endswith("_mask") else trees.picture)(tmp_path / f"{name}.png")
    samples = {sample.image.stem: sample for sample in list_samples(tmp_path)}
    assert {stem: sample.kind for stem, sample in samples.items()} == {"1": "scratch", "2": "scratch", "3": "dent"}
    assert samples["1"].mask == tmp_path / "scratch" / "1_mask.png" and samples["2"].mask is None
    assert samples["3"].mask == tmp_path / "ground_truth" / "dent" / "3_mask.png"


@pytest.mark.parametrize("end", ["_mask", "_gt", "_label", "_seg", "-mask"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_mask_beside_a_defect_is_found_by_its_ending(tmp_path: Path, end: str, suffix: str) -> None:
    image = trees.picture(tmp_path / "parts" / "scratch" / f"1{suffix}")
    trees.picture(tmp_path / "parts" / "good" / "2.png")
    mask = trees.mask(image.with_name(f"1{end}.png"))
    assert {sample.image: sample.mask for sample in list_samples(tmp_path / "parts")}[image] == mask


def test_image_without_a_mask_beside_masked_ones_is_sound(tmp_path: Path) -> None:
    for name in ("1", "1_mask", "2"):
        (trees.mask if name.endswith("_mask") else trees.picture)(tmp_path / f"{name}.png")
    assert {sample.image.stem: sample.defective for sample in list_samples(tmp_path)} == {"1": True, "2": False}


def test_samples_of_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no layout"):
        list_samples(tmp_path)


def test_wide_table_of_short_rows_takes_little_memory(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("image,label," + ",".join(f"c{i}" for i in range(2000)) + "\n" + "x\n" * 20_000)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match="line 2: no label"):
            open_dataset(table)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_table_with_too_many_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_walk, "MAX_ROWS", 3)
    (tmp_path / "a.csv").write_text("image,label\n" + "x.png,good\n" * 4)
    with pytest.raises(BadInput, match="more than 3 rows"):
        open_dataset(tmp_path / "a.csv")


@pytest.mark.parametrize("pattern", ["a{99999999999}", "(" * 3000, "("])
def test_invalid_group_pattern_is_refused(pattern: str, tmp_path: Path) -> None:
    root = trees.BUILDERS["mvtec"](tmp_path / "set")
    with pytest.raises(UsageError, match=r"data\.group: .* is not a usable regular expression"):
        open_dataset(root, group=pattern)


def test_check_reports_images_named_like_masks(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for number in range(10):
        trees.picture(root / "good" / f"{number}.png", number)
    trees.picture(root / "bent" / "1.png", 99)
    trees.mask(root / "bent" / "1_mask.png")
    trees.picture(root / "bent" / "part_label.png", 98)
    findings = [finding for finding in check(open_dataset(root), NoProgress()) if "named like masks" in finding.text]
    assert [(finding.text[:8], [file.name for file in finding.files]) for finding in findings] == [
        ("1 images", ["part_label.png"])
    ]


# --- parts that would count as sound because of a file's name


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (
            ["Part0.png", "1.png", "1_mask.png", "other_mask.png"],
            "other_mask.png: has a mask's name, but there is no image",
        ),
        (["1.png", "1_mask.png", "0.png", "0_mask.png", "0_gt.png"], "0_mask.png: a second mask beside 0_gt.png"),
        (["1.png", "1_mask.png", "0.png", "0_mask1.png"], "0_mask1.png: named like a mask of another image"),
        (["1.png", "1_mask.png", "0.png", "0.mask.png"], "0.mask.png: named like a mask of another image"),
        (["1.png", "1_mask.png", "part_008_bad.png"], "part_008_bad.png: its name says that the part is defective"),
    ],
)
def test_mask_that_would_be_left_out_is_refused(names: list[str], reason: str, tmp_path: Path) -> None:
    for name in names:
        (trees.mask if "mask" in name or "gt" in name else trees.picture)(tmp_path / "parts" / name)
    with pytest.raises(BadInput, match=reason):
        layouts.scan(tmp_path / "parts")


def test_mask_is_found_in_another_case(tmp_path: Path) -> None:
    for name in ("Part0.png", "part1.png"):
        trees.picture(tmp_path / "parts" / name)
    trees.mask(tmp_path / "parts" / "part0_mask.png")
    layout, samples = layouts.scan(tmp_path / "parts")
    assert layout == "masks_beside" and [(s.image.name, s.kind) for s in samples] == [
        ("Part0.png", "defect"),
        ("part1.png", "good"),
    ]


def test_mask_that_marks_in_alpha_only_is_refused(tmp_path: Path) -> None:
    trees.picture(tmp_path / "parts" / "0.png")
    values = np.zeros((32, 32, 4), np.uint8)
    values[5:9, 5:9, 3] = 255
    cv2.imwrite(str(tmp_path / "parts" / "0_mask.png"), values)
    with pytest.raises(BadInput, match=r"0_mask\.png: a mask that is black everywhere and partly transparent"):
        layouts.scan(tmp_path / "parts")
    values[:, :, 3] = 255
    cv2.imwrite(str(tmp_path / "parts" / "0_mask.png"), values)
    assert [sample.kind for sample in layouts.scan(tmp_path / "parts")[1]] == ["good"]


@pytest.mark.parametrize("name", ["part_007_NG.png", "part 8 bad.png", "part.defect.3.png", "0_mask1.png"])
def test_folder_with_a_defects_name_is_not_sound_only(name: str, tmp_path: Path) -> None:
    root = trees.sound_only(tmp_path / "parts")
    assert layouts.recognise(root) == "sound_only"
    trees.picture(root / name)
    with pytest.raises(BadInput, match="no layout recognised"):
        layouts.recognise(root)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("image,label,label\nx.png,bent,good\n", "2 columns are called 'label'"),
        ("image,label,kind\nx.png,good,bent\n", "line 2: label 'good' and kind 'bent' contradict each other"),
        ("image,label,kind\nx.png,1,0\n", "line 2: label '1' and kind '0' contradict each other"),
    ],
)
def test_contradictory_labels_of_a_table_are_refused(table: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(table)
    with pytest.raises(BadInput, match=reason):
        layouts.scan(tmp_path / "a.csv")


def test_category_with_the_name_of_all_categories_is_refused(tmp_path: Path) -> None:
    """Its limits would replace the pooled ones."""
    trees.mvtec(tmp_path)
    (tmp_path / "screw").rename(tmp_path / "*")
    with pytest.raises(BadInput, match=r"a category called '\*', which stands for all categories together"):
        layouts.scan(tmp_path)
