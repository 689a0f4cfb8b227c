"""Artifacts: the check for external tensors, the card, and the runtimes with and without the quarantine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

import numpy as np

from tests.fuzzing.mutate import mutate_bytes, mutate_tree, to_hostile_json
from tests.fuzzing.targets.target import Target

ARTIFACT_VARIABLE = "INSPECT_KD_FUZZ_ARTIFACT"
"""Environment variable with the path of a real artifact, of which some inputs are mutations."""


class Wire(Target):
    """The check for tensors in external files."""

    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        from tests.fuzzing import graphs

        self.graphs, self.seeds = graphs, [graphs.artifact().SerializeToString()]

    def make(self, rng: Random) -> bytes:
        if rng.random() < 0.9:
            return mutate_bytes(rng, rng.choice(self.seeds), self.seeds[0])
        return self.graphs.make_hostile(rng, self.seeds, self.sandbox)

    def feed(self, data: bytes) -> None:
        from inspect_kd.export.wire import refuse_external_data

        refuse_external_data(data, "a.onnx")


class Card(Target):
    """The artifact card, and the code of an inspection that uses its fields."""

    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        from tests.fuzzing.graphs import card

        self.seed = card().dump()

    def make(self, rng: Random) -> bytes:
        content = json.loads(self.seed)
        if rng.random() < 1e-5:
            return json.dumps(content | {"name": "x" * 10**8}).encode()
        return to_hostile_json(rng, mutate_tree(rng, content))

    def feed(self, data: bytes) -> None:
        from inspect_kd.datasets.images import as_rgb8
        from inspect_kd.export.card import ArtifactCard, card_facts

        card = ArtifactCard.parse(data.decode("utf-8", "replace"), "a.onnx")
        card.image_presentations.check_size(np.zeros((2, 2, 3), np.uint8))
        for category in (None, *card.categories):
            limits = card.calibration.for_category(category)
            limits.thresholds.decide(0.5)
            limits.describe().encode()
        as_rgb8(np.zeros((2, 2), np.uint16), bits=card.bits)
        json.dumps(card_facts(card), ensure_ascii=False).encode()
        ArtifactCard.parse(card.dump(), "a.onnx")


class Calibrations(Target):
    """A run's calibration.json."""

    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        from tests.fuzzing.graphs import card

        self.seed = json.dumps(card().calibration.to_json())

    def make(self, rng: Random) -> bytes:
        return to_hostile_json(rng, mutate_tree(rng, json.loads(self.seed)))

    def feed(self, data: bytes) -> None:
        from inspect_kd.calibrate import read_calibration

        path = self.sandbox / "calibration.json"
        path.write_bytes(data)
        calibration = read_calibration(path)
        calibration.for_category(None).describe()
        calibration.to_json()


class Onnx(Target):
    """Artifacts opened by the Inspector in ONNX Runtime, without the quarantine."""

    native = True
    suffix = ".onnx"

    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        from tests.fuzzing import graphs

        self.graphs = graphs
        self.seeds = [graphs.artifact().SerializeToString()]
        path = os.environ.get(ARTIFACT_VARIABLE)
        self.real_artifact = Path(path).resolve().read_bytes() if path else b""
        self._enter_sandbox(sandbox)
        self.image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)

    def warm_up(self) -> None:
        self.feed(self.seeds[0])

    def _enter_sandbox(self, sandbox: Path) -> None:
        """Put links to the bait into `sandbox`, and enter it, because paths of external tensors are relative to the working directory."""
        secret = self.bait / "secret.bin"
        (sandbox / "folder").symlink_to(self.bait)
        (sandbox / "link.bin").symlink_to(secret)
        (sandbox / "hard.bin").hardlink_to(secret)
        os.chdir(sandbox)

    def make(self, rng: Random) -> bytes:
        if self.real_artifact and rng.random() < 0.01:
            return mutate_bytes(rng, self.real_artifact, self.seeds[0])
        return self.graphs.make_hostile(rng, self.seeds, self.sandbox)

    def feed(self, data: bytes) -> None:
        from inspect_kd.inspector import Inspector

        path = self.sandbox / f"a{self.suffix}"
        path.write_bytes(data)
        inspector = Inspector(path, quarantine=False)
        inspector.predict_batch(np.zeros((1, inspector.size, inspector.size, 3), np.uint8))
        inspector(self.image)


class Openvino(Onnx):
    """Artifacts opened by the Inspector in OpenVINO, without the quarantine."""

    suffix = ".openvino.onnx"


class Quarantine(Onnx):
    """Artifacts opened with the quarantine, as users open them; each takes half a second."""

    native = False

    def feed(self, data: bytes) -> None:
        from inspect_kd import quarantine
        from inspect_kd.inspector import Inspector

        os.environ["INSPECT_KD_CACHE"] = str(self.sandbox / "cache")
        quarantine.MAX_SECONDS, quarantine.BASE_MEGABYTES = 5, 1024
        path = self.sandbox / f"a{self.suffix}"
        path.write_bytes(data)
        Inspector(path)(self.image)


class QuarantineOpenvino(Quarantine):
    suffix = ".openvino.onnx"
