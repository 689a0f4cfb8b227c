"""Check a data set before training: leaks between splits, broken files, wrong masks, mixed formats."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inspect_kd.calibrate import parts_needed
from inspect_kd.datasets import DataSet, layouts
from inspect_kd.datasets.find_images import find_in_folder
from inspect_kd.datasets.images import read_image, read_image_header, read_mask
from inspect_kd.datasets.layouts._walk import MASK_FOLDERS, image_stem, is_mask
from inspect_kd.errors import BadInput, printable
from inspect_kd.types import Progress, Sample, Split

MIN_DEFECTS = 10
"""Least number of defective test parts of a category with which metrics are not called rough."""
USED_IN_TRAINING = (Split.TRAIN, Split.CALIBRATION, Split.VALIDATION)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One problem or remark, with its files."""

    severity: str
    """error, warning or note"""
    text: str
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFacts:
    """Size, mode and digest of one image, or the error that occurred when reading it."""

    sample: Sample
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    digest: str = ""
    error: str = ""


def check(data: DataSet, progress: Progress) -> list[Finding]:
    """Read every image once and list the findings, the worst first."""
    progress.phase("check", len(data.samples))
    facts = []
    for sample in data.samples:
        facts.append(_read_facts(sample))
        progress.advance()
    findings = [
        *(Finding(severity="error", text=image.error, files=(image.sample.image,)) for image in facts if image.error),
        *_find_duplicates(facts),
        *_check_masks(data.samples),
        *_find_unused_masks(data),
        *find_left_out(data),
        *_find_mixed_formats(facts),
        *_check_counts(data),
    ]
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def _read_facts(sample: Sample) -> ImageFacts:
    try:
        width, height, mode = read_image_header(sample.image)
        pixels = read_image(sample.image)
    except BadInput as error:
        return ImageFacts(sample=sample, error=str(error))
    # A digest of the pixels, not of the file, also finds an image that was saved twice.
    return ImageFacts(
        sample=sample, size=(width, height), mode=mode, digest=hashlib.sha256(pixels.tobytes()).hexdigest()
    )


def _find_duplicates(facts: list[ImageFacts]) -> Iterable[Finding]:
    """Find identical images; across training and test they are a leak."""
    by_digest: dict[str, list[Sample]] = defaultdict(list)
    for image in facts:
        if image.digest:
            by_digest[image.digest].append(image.sample)
    for duplicates in by_digest.values():
        if len(duplicates) < 2:
            continue
        files = tuple(sample.image for sample in duplicates)
        splits = {sample.split for sample in duplicates}
        if len({sample.defective for sample in duplicates}) == 2:
            yield Finding(severity="error", text="the same image is labelled both sound and defective", files=files)
        elif Split.TEST in splits and splits & set(USED_IN_TRAINING):
            yield Finding(
                severity="error", text="leak: the same image is used for training and for the test", files=files
            )
        elif len(splits) > 1:
            yield Finding(
                severity="warning", text=f"the same image in {' and '.join(sorted(map(str, splits)))}", files=files
            )
        else:
            yield Finding(severity="note", text="the same image twice", files=files)


def _check_masks(samples: list[Sample]) -> Iterable[Finding]:
    for sample in samples:
        if sample.mask is None:
            continue
        try:
            image_size, mask_size = read_image_header(sample.image)[:2], read_image_header(sample.mask)[:2]
            marked = read_mask(sample.mask, size=mask_size)
        except BadInput as error:
            yield Finding(severity="error", text=str(error), files=(sample.mask,))
            continue
        if not marked.any():
            yield Finding(severity="error", text="a defective part has an empty mask", files=(sample.mask,))
        elif np.mean(marked) > 0.9:
            yield Finding(
                severity="warning",
                text="a mask covers more than 90 % of the image; is it inverted?",
                files=(sample.mask,),
            )
        if image_size != mask_size:
            sizes = f"mask {mask_size[0]}x{mask_size[1]}, image {image_size[0]}x{image_size[1]}"
            yield Finding(
                severity="warning",
                text=f"mask and image differ in size: {sizes}",
                files=(sample.image, sample.mask),
            )
    without_mask = tuple(sample.image for sample in samples if sample.defective and sample.mask is None)
    if without_mask:
        text = f"{len(without_mask)} defective parts have no mask: pixel metrics leave them out"
        yield Finding(severity="note", text=text, files=without_mask[:5])


def _find_unused_masks(data: DataSet) -> Iterable[Finding]:
    """Find files that are left out as masks because of their names, although they belong to no image."""
    images = {sample.image.with_suffix("") for sample in data.samples}
    masks = (path for path in (find_in_folder(data.root) if data.root.is_dir() else ()) if is_mask(path))
    unused = tuple(
        path
        for path in masks
        if path.with_suffix("") not in images
        and path.with_name(image_stem(path)) not in images
        and not {*MASK_FOLDERS} & set(path.relative_to(data.root).parts)
    )
    if unused:
        text = f"{len(unused)} images are named like masks but belong to no image: they are left out; rename those that are parts"
        yield Finding(severity="note", text=text, files=unused)


def find_left_out(data: DataSet) -> Iterable[Finding]:
    """Find images that the layout does not read, such as those in a deeper folder. Call it for a whole data set."""
    if left_out := tuple(layouts.left_out(data.root, data.layout, data.samples)):
        places = ", ".join(printable(path.relative_to(data.root).as_posix()) for path in left_out[:3])
        text = f"{len(left_out)} images are left out by the layout '{data.layout}': {places}{' …' if len(left_out) > 3 else ''}"
        yield Finding(severity="warning", text=text, files=left_out)


def _find_mixed_formats(facts: list[ImageFacts]) -> Iterable[Finding]:
    for category in sorted({image.sample.category for image in facts}):
        images = [image for image in facts if image.sample.category == category and not image.error]
        sizes, modes = Counter(image.size for image in images), Counter(image.mode for image in images)
        if len(sizes) > 1:
            common = ", ".join(f"{width}x{height} ({count})" for (width, height), count in sizes.most_common(3))
            yield Finding(
                severity="note",
                text=f"{category}: {len(sizes)} image sizes: {common}; all are resized to the same square",
            )
        if len(modes) > 1:
            text = f"{category}: mixed pixel formats: {', '.join(f'{mode} ({count})' for mode, count in modes.most_common())}"
            yield Finding(severity="warning", text=f"{text}; sound and defective parts should come from one camera")


def _check_counts(data: DataSet) -> Iterable[Finding]:
    for category in data.categories:
        held_out = len(data.select(Split.CALIBRATION, category))
        text = (
            f"{category}: {held_out} held-out sound parts promise a false-reject rate of {100 / (held_out + 1):.1f} %"
        )
        advice = "" if held_out >= parts_needed(0.01) else f"; 1 % needs {parts_needed(0.01)}"
        yield Finding(severity="note", text=text + advice)
        defects = sum(sample.defective for sample in data.select(Split.TEST, category))
        if defects < MIN_DEFECTS:
            text = f"{category}: {defects} defective parts: " + (
                "metrics will be rough" if defects else "metrics cannot be measured"
            )
            yield Finding(severity="note", text=text)
