"""What is wrong with a data set, before a training finds out: leaks, torn files, masks that do not fit, mixed formats."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inspect_kd.calibrate import parts_needed
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.find_images import find_in_folder
from inspect_kd.datasets.images import image_facts, read_image, read_mask
from inspect_kd.datasets.layouts._walk import MASK_FOLDERS, image_stem, is_mask
from inspect_kd.errors import BadInput
from inspect_kd.types import Progress, Sample, Split

FEW_DEFECTS = 10
LEARNT_FROM = (Split.TRAIN, Split.CALIBRATION, Split.VALIDATION)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    severity: str
    """error, warning or note"""
    text: str
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFacts:
    """What one image is, as far as it could be read."""

    sample: Sample
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    content: str = ""
    error: str = ""


def check(data: DataSet, progress: Progress) -> list[Finding]:
    """Read every file once; the worst findings first."""
    progress.phase("check", len(data.samples))
    facts = []
    for sample in data.samples:
        facts.append(_look(sample))
        progress.advance()
    findings = [
        *(Finding(severity="error", text=each.error, files=(each.sample.image,)) for each in facts if each.error),
        *_twins(facts),
        *_masks(data.samples),
        *_left_out(data),
        *_mixtures(facts),
        *_counts(data),
    ]
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def _look(sample: Sample) -> ImageFacts:
    try:
        width, height, mode = image_facts(sample.image)
        pixels = read_image(sample.image)
    except BadInput as error:
        return ImageFacts(sample=sample, error=str(error))
    # Pixels, not bytes: the same photograph saved twice is still the same photograph.
    return ImageFacts(
        sample=sample, size=(width, height), mode=mode, content=hashlib.sha256(pixels.tobytes()).hexdigest()
    )


def _twins(facts: list[ImageFacts]) -> Iterable[Finding]:
    """The same picture twice: a leak where one is learnt from and the other tested on."""
    by_content: dict[str, list[Sample]] = defaultdict(list)
    for each in facts:
        if each.content:
            by_content[each.content].append(each.sample)
    for twins in by_content.values():
        if len(twins) < 2:
            continue
        files = tuple(sample.image for sample in twins)
        splits = {sample.split for sample in twins}
        if len({sample.defective for sample in twins}) == 2:
            yield Finding(severity="error", text="the same picture is called sound and defective", files=files)
        elif Split.TEST in splits and splits & set(LEARNT_FROM):
            yield Finding(severity="error", text="leak: the same picture is learnt from and tested on", files=files)
        elif len(splits) > 1:
            yield Finding(
                severity="warning", text=f"the same picture in {' and '.join(sorted(map(str, splits)))}", files=files
            )
        else:
            yield Finding(severity="note", text="the same picture twice", files=files)


def _masks(samples: list[Sample]) -> Iterable[Finding]:
    for sample in samples:
        if sample.mask is None:
            continue
        try:
            image_size, mask_size = image_facts(sample.image)[:2], image_facts(sample.mask)[:2]
            marked = read_mask(sample.mask, size=mask_size)
        except BadInput as error:
            yield Finding(severity="error", text=str(error), files=(sample.mask,))
            continue
        if not marked.any():
            yield Finding(severity="error", text="an empty mask on a defective part", files=(sample.mask,))
        elif np.mean(marked) > 0.9:
            yield Finding(
                severity="warning", text="a mask that covers the whole image: inverted?", files=(sample.mask,)
            )
        if image_size != mask_size:
            sizes = f"mask {mask_size[0]}x{mask_size[1]}, image {image_size[0]}x{image_size[1]}"
            yield Finding(
                severity="warning",
                text=f"the mask's size is not the image's: {sizes}",
                files=(sample.image, sample.mask),
            )
    bare = tuple(sample.image for sample in samples if sample.defective and sample.mask is None)
    if bare:
        text = f"{len(bare)} defective parts have no mask: pixel metrics leave them out"
        yield Finding(severity="note", text=text, files=bare[:5])


def _left_out(data: DataSet) -> Iterable[Finding]:
    """Images that are taken for masks by their names alone: a part may be called so, too."""
    images = {sample.image.with_suffix("") for sample in data.samples}
    named = (path for path in (find_in_folder(data.root) if data.root.is_dir() else ()) if is_mask(path))
    alone = tuple(
        path
        for path in named
        if path.with_suffix("") not in images
        and path.with_name(image_stem(path)) not in images
        and not {*MASK_FOLDERS} & set(path.relative_to(data.root).parts)
    )
    if alone:
        text = f"{len(alone)} images are named as masks are, but no image goes with them: left out; rename those that are parts"
        yield Finding(severity="note", text=text, files=alone)


def _mixtures(facts: list[ImageFacts]) -> Iterable[Finding]:
    for category in sorted({each.sample.category for each in facts}):
        here = [each for each in facts if each.sample.category == category and not each.error]
        sizes, modes = Counter(each.size for each in here), Counter(each.mode for each in here)
        if len(sizes) > 1:
            common = ", ".join(f"{width}x{height} ({count})" for (width, height), count in sizes.most_common(3))
            yield Finding(
                severity="note", text=f"{category}: {len(sizes)} sizes of image: {common}; all are squashed to one"
            )
        if len(modes) > 1:
            text = f"{category}: mixed kinds of pixel: {', '.join(f'{mode} ({count})' for mode, count in modes.most_common())}"
            yield Finding(severity="warning", text=f"{text}; sound and defective parts should come from one camera")


def _counts(data: DataSet) -> Iterable[Finding]:
    for category in data.categories:
        held = len(data.select(Split.CALIBRATION, category))
        text = f"{category}: {held} held-out sound parts promise a false-reject rate of {100 / (held + 1):.1f} %"
        more = "" if held >= parts_needed(0.01) else f"; 1 % takes {parts_needed(0.01)}"
        yield Finding(severity="note", text=text + more)
        defects = sum(sample.defective for sample in data.select(Split.TEST, category))
        if defects < FEW_DEFECTS:
            text = f"{category}: {defects} defective parts: " + (
                "metrics will be rough" if defects else "metrics cannot be measured"
            )
            yield Finding(severity="note", text=text)
