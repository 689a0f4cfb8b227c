"""Artifacts: references to external files, the card, and the runtimes with and without the quarantine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

import numpy as np

from tests.fuzzing.mutate import as_json, changed, damaged
from tests.fuzzing.targets.target import Target

ARTIFACT = "INSPECT_KD_FUZZ_ARTIFACT"
"""Environment variable with a real artifact to mutate as well."""


class Wire(Target):
    """The check for tensors in external files."""

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        from tests.fuzzing import graphs

        self.graphs, self.seeds = graphs, [graphs.artifact().SerializeToString()]

    def make(self, rng: Random) -> bytes:
        if rng.random() < 0.9:
            return damaged(rng, rng.choice(self.seeds), self.seeds[0])
        return self.graphs.hostile(rng, self.seeds, self.room)

    def feed(self, data: bytes) -> None:
        from inspect_kd.export.wire import refuse_external_data

        refuse_external_data(data, "a.onnx")


class Card(Target):
    """The card, and the uses of its fields on the line."""

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        from tests.fuzzing.graphs import card

        self.seed = card().dump()

    def make(self, rng: Random) -> bytes:
        content = json.loads(self.seed)
        if rng.random() < 1e-5:
            return json.dumps(content | {"name": "x" * 10**8}).encode()
        return as_json(rng, changed(rng, content))

    def feed(self, data: bytes) -> None:
        from inspect_kd.datasets.images import as_rgb8
        from inspect_kd.datasets.view import View
        from inspect_kd.export.card import ArtifactCard, card_facts

        card = ArtifactCard.parse(data.decode("utf-8", "replace"), "a.onnx")
        View(size=card.size, tile=card.tile, overlap=card.overlap)
        for category in (None, *card.categories):
            limits = card.calibration.for_category(category)
            limits.thresholds.decide(0.5)
            limits.describe().encode()
        as_rgb8(np.zeros((2, 2), np.uint16), bits=card.bits)
        json.dumps(card_facts(card), ensure_ascii=False).encode()
        ArtifactCard.parse(card.dump(), "a.onnx")


class Calibrations(Target):
    """A run's calibration.json."""

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        from tests.fuzzing.graphs import card

        self.seed = json.dumps(card().calibration.to_json())

    def make(self, rng: Random) -> bytes:
        return as_json(rng, changed(rng, json.loads(self.seed)))

    def feed(self, data: bytes) -> None:
        from inspect_kd.calibrate import read_calibration

        path = self.room / "calibration.json"
        path.write_bytes(data)
        calibration = read_calibration(path)
        calibration.for_category(None).describe()
        calibration.to_json()


class Onnx(Target):
    """Artifacts in the Inspector with ONNX Runtime, without the quarantine."""

    native = True
    suffix = ".onnx"

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        from tests.fuzzing import graphs

        self.graphs = graphs
        self.seeds = [graphs.artifact().SerializeToString()]
        given = os.environ.get(ARTIFACT)
        self.large = Path(given).resolve().read_bytes() if given else b""
        self._link_bait(room)
        self.image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)

    def warm_up(self) -> None:
        self.feed(self.seeds[0])

    def _link_bait(self, room: Path) -> None:
        """Create links to the bait, and make the room the working directory, for external tensors with relative paths."""
        secret = self.bait / "secret.bin"
        (room / "folder").symlink_to(self.bait)
        (room / "link.bin").symlink_to(secret)
        (room / "hard.bin").hardlink_to(secret)
        os.chdir(room)

    def make(self, rng: Random) -> bytes:
        if self.large and rng.random() < 0.01:
            return damaged(rng, self.large, self.seeds[0])
        return self.graphs.hostile(rng, self.seeds, self.room)

    def feed(self, data: bytes) -> None:
        from inspect_kd.inspector import Inspector

        path = self.room / f"a{self.suffix}"
        path.write_bytes(data)
        inspector = Inspector(path, quarantine=False)
        inspector.predict_batch(np.zeros((1, inspector.size, inspector.size, 3), np.uint8))
        inspector(self.image)


class Openvino(Onnx):
    """The same in OpenVINO."""

    suffix = ".openvino.onnx"


class Quarantine(Onnx):
    """The same artifacts with the quarantine, as users open them: half a second each."""

    native = False

    def feed(self, data: bytes) -> None:
        from inspect_kd import quarantine
        from inspect_kd.inspector import Inspector

        os.environ["INSPECT_KD_CACHE"] = str(self.room / "cache")
        quarantine.SECONDS, quarantine.MEGABYTES = 5, 1024
        path = self.room / f"a{self.suffix}"
        path.write_bytes(data)
        Inspector(path)(self.image)


class QuarantineOpenvino(Quarantine):
    suffix = ".openvino.onnx"
