"""The values that cross borders between packages. NumPy and the standard library only.

Shapes: H W image, N batch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

ImageU8 = npt.NDArray[np.uint8]
"""(H, W, 3) RGB, 8 bit: what every part of the product means by an image."""
Mask = npt.NDArray[np.bool_]
"""(H, W), True where the part is defective."""
Heatmap = npt.NDArray[np.float32]
"""(H, W), calibrated: 1.0 is the reject threshold over all categories."""


class BatchPrediction(NamedTuple):
    """What a model says of a batch, on the calibrated scale."""

    scores_N: npt.NDArray[np.float32]
    heatmaps_NHW: npt.NDArray[np.float32]


class Model(Protocol):
    """Anything that looks at parts: a student in torch, an artifact in a runtime."""

    @property
    def size(self) -> int:
        """Side of the square images that it takes."""

    def predict_batch(self, images_NHW3: npt.NDArray[np.uint8]) -> BatchPrediction: ...


class Progress(Protocol):
    """Somebody who follows long work: a progress bar, a log, nobody."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """A new part of the work begins, with so many steps; some were done before, by whoever was stopped."""

    def advance(self, steps: int = 1, **figures: float) -> None:
        """So many steps are done; `figures` are worth showing."""

    def note(self, text: str) -> None:
        """One line that a person should read."""


class NoProgress:
    """Work that nobody follows."""

    def phase(self, name: str, total: int, done: int = 0) -> None: ...

    def advance(self, steps: int = 1, **figures: float) -> None: ...

    def note(self, text: str) -> None: ...


class Split(StrEnum):
    """What a sample may be used for. Calibration and validation hold sound parts only, never seen by the optimiser."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image of a data set."""

    image: Path
    category: str
    """The kind of part."""
    kind: str = "good"
    """`good`, or the name of the defect."""
    split: Split | None = None
    """None: not yet assigned; the layout did not say."""
    mask: Path | None = None
    """Where the defect's mask lies; None for sound parts and for defects that nobody has outlined."""
    group: str | None = None
    """Images of one physical part (or one shot series) share a group and never straddle two splits."""

    @property
    def defective(self) -> bool:
        return self.kind != "good"


class Decision(StrEnum):
    OK = "OK"
    REINSPECT = "RE-INSPECT"
    NG = "NG"


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """Two limits on the calibrated score: above `reinspect` a person looks, above `reject` the part is NG."""

    reinspect: float
    reject: float

    @property
    def highest_choice(self) -> float:
        """The highest limit that a person may choose in place of these: clear defects score beyond it."""
        return round(max(2.0, 2 * self.reject), 1)

    def decide(self, score: float) -> Decision:
        """NaN is never OK: a comparison with NaN is false, hence the order of the questions."""
        if score <= self.reinspect:
            return Decision.OK
        return Decision.REINSPECT if score <= self.reject else Decision.NG


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A connected place above the threshold, in pixels of the original image."""

    x: int
    y: int
    width: int
    height: int
    area: int
    """Pixels above the threshold."""
    peak: float
    """Largest calibrated heat inside."""
    peak_x: int
    peak_y: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """The answer to one image."""

    score: float
    decision: Decision
    heatmap: Heatmap
    """At the scale at which the artifact looks; `overlay.enlarge` brings it to the image's."""
    regions: tuple[Region, ...]
    thresholds: Thresholds
    image: str | None = None
    """The file's path as it was given; None for arrays."""
    image_size: tuple[int, int] = (0, 0)
    """(width, height) of the original."""
    milliseconds: float = 0.0
    """Wall time of resize and model, without reading the file."""

    def to_json(self) -> dict[str, Any]:
        """Everything but the heatmap, ready for `json.dumps`."""
        return {
            "image": self.image,
            "score": round(self.score, 6),
            "decision": str(self.decision),
            "thresholds": asdict(self.thresholds),
            "image_size": list(self.image_size),
            "regions": [asdict(region) | {"peak": round(region.peak, 6)} for region in self.regions],
            "milliseconds": round(self.milliseconds, 3),
        }
