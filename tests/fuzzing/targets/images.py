"""Images of every format."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np

from tests.fuzzing.targets.target import Target


class Images(Target):
    # Images of two hundred million pixels, which is the limit, take long.
    cpu_s = 20

    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        from tests.fuzzing import pictures

        self.pictures, self.seeds = pictures, pictures.seeds()

    def make(self, rng: Random) -> bytes:
        return self.pictures.mutate_image(rng, self.seeds)

    def feed(self, data: bytes) -> None:
        from inspect_kd.datasets.images import decode_image, read_image_header, read_mask

        path = self.sandbox / "a.png"
        path.write_bytes(data)
        read_image_header(path)
        image = decode_image(data, "a.png", bits=12)
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        if image.size < 10**6:
            read_mask(path, size=(24, 20))
