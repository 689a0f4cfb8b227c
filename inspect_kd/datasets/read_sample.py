"""Read a sample's image for the presentation of its category."""

from __future__ import annotations

from inspect_kd.datasets.images import read_image
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.types import ImageU8, Sample


def read_sample(sample: Sample, presentations: Presentations, bits: int | None) -> ImageU8:
    """Read a sample's image; refuse, by its name, one of a size that cannot be presented."""
    image = read_image(sample.image, bits=bits)
    presentations.check_size(image, str(sample.image), sample.category)
    return image
