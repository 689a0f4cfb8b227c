"""Advise on the sound pictures of a data set before anything is trained: measure them, and give advice where it is worth following.

This must be quick: at most 300 pictures of a category are read, each once, and nearly everything is measured on small copies of them.
The module imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from inspect_kd.config import CalibrationConfig, Data
from inspect_kd.datasets import DataSet
from inspect_kd.datasets.advice.advice import Advice
from inspect_kd.datasets.advice.amount import advise_on_amount
from inspect_kd.datasets.advice.blur import advise_on_blur
from inspect_kd.datasets.advice.defect_size import advise_on_scale
from inspect_kd.datasets.advice.light import advise_on_light
from inspect_kd.datasets.advice.parts_lie import advise_on_pose, measure_pose_spread
from inspect_kd.datasets.advice.products import advise_on_products, find_products
from inspect_kd.datasets.advice.series import advise_on_series
from inspect_kd.datasets.advice.sound_picture import SoundPicture, choose_samples, measure_picture
from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.errors import BadInput
from inspect_kd.types import Progress, Sample, Split


def advise(
    data: DataSet,
    settings: Data,
    rates: CalibrationConfig,
    progress: Progress,
    *,
    presentations: Presentations | None = None,
    whole_images: bool = False,
) -> list[Advice]:
    """Measure the sound pictures of each category and list the advice on them.

    `presentations`: how the training presents the pictures to the model, if that is chosen already. `whole_images`: tiles are not allowed.
    """
    by_category = {category: sound_samples(data, category) for category in data.categories}
    chosen = {category: choose_samples(samples) for category, samples in by_category.items()}
    progress.phase("advice", sum(map(len, chosen.values())))
    advice: list[Advice] = []
    for category, samples in chosen.items():
        advice += advise_on_pictures(
            category,
            by_category[category],
            read_pictures(samples, settings.bits, progress),
            settings,
            rates,
            presentations=presentations,
            whole_images=whole_images,
        )
    return advice


def sound_samples(data: DataSet, category: str) -> list[Sample]:
    """List the sound parts of a category that training, thresholds or early stopping use."""
    return [
        sample
        for sample in data.samples
        if sample.category == category and not sample.defective and sample.split is not Split.TEST
    ]


def read_pictures(samples: Sequence[Sample], bits: int | None, progress: Progress) -> list[SoundPicture]:
    """Read and measure pictures; unreadable ones are left out, since `data check` and the training report them."""
    pictures = []
    for sample in samples:
        with suppress(BadInput):
            pictures.append(measure_picture(sample, read_image(sample.image, bits=bits)))
        progress.advance()
    return pictures


def advise_on_pictures(
    category: str,
    sound: Sequence[Sample],
    pictures: Sequence[SoundPicture],
    settings: Data,
    rates: CalibrationConfig,
    *,
    presentations: Presentations | None = None,
    whole_images: bool = False,
) -> list[Advice]:
    """Advise on the pictures of one category. `sound` are all of its sound parts, of which `pictures` are some."""
    if not pictures:
        return []
    presentation = presentations.by_category.get(category, presentations.default) if presentations else None
    spread = measure_pose_spread(pictures)
    products = find_products(pictures, spread)
    return [
        *advise_on_pose(category, pictures, spread, settings, presentation),
        *advise_on_scale(category, pictures, settings, presentation, whole_images=whole_images),
        *advise_on_light(category, pictures, products),
        *advise_on_blur(category, pictures),
        *advise_on_amount(category, sound, pictures, settings, rates),
        *advise_on_products(category, pictures, products),
        *advise_on_series(category, pictures, spread),
    ]
