"""Types that several packages share. NumPy and the standard library only.

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
"""(H, W, 3) RGB, 8 bit: the format of every image in this program."""
Mask = npt.NDArray[np.bool_]
"""(H, W), True where the part is defective."""
Heatmap = npt.NDArray[np.float32]
"""(H, W), calibrated: 1.0 is the reject threshold over all categories."""


NOT_FOUND_SCORE = 1e6
"""Score of a part that was not found in its image: above every threshold."""
NOT_FOUND = "not_found"
"""Cause of the decision on a part that was not found, in JSON and CSV."""
FrameOutline = tuple[tuple[float, float], ...]
"""Corners (x, y) of a frame in pixels of the original image, in their order around it."""


def is_not_found(score: float) -> bool:
    """Whether a score says that the part was not found in its image."""
    return score >= NOT_FOUND_SCORE


def format_score(score: float, digits: int = 2) -> str:
    """Format a score for people: a part that was not found has no score of its own."""
    return "not found" if is_not_found(score) else f"{score:.{digits}f}"


class BatchPrediction(NamedTuple):
    """Scores and heatmaps of a batch, on the calibrated scale."""

    scores_N: npt.NDArray[np.float32]
    heatmaps_NHW: npt.NDArray[np.float32]


class Model(Protocol):
    """Anything that predicts scores and heatmaps: a student in torch, an artifact in a runtime."""

    @property
    def size(self) -> int:
        """Side of the square input images."""

    @property
    def weights_side(self) -> int | None:
        """Side of the grid of zones' weights that the model takes beside each image; None if it takes no zones."""

    def predict_batch(
        self, images_NHW3: npt.NDArray[np.uint8], weights_N1hw: npt.NDArray[np.float32] | None = None
    ) -> BatchPrediction:
        """Predict on images that already have the input size. Without weights every place counts as inspected."""


class Progress(Protocol):
    """Receives the progress of long tasks, for example to show a bar or to write a log."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin a phase of `total` steps, 0 if unknown; an interrupted run already completed `done` of them."""

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Report completed steps; `figures` are values to show, such as a loss."""

    def note(self, text: str) -> None:
        """Show a person one line of text."""


class NoProgress:
    """A `Progress` that shows nothing."""

    def phase(self, name: str, total: int, done: int = 0) -> None: ...

    def advance(self, steps: int = 1, **figures: float) -> None: ...

    def note(self, text: str) -> None: ...


class Split(StrEnum):
    """What a sample is used for. Calibration and validation hold only sound parts, which the optimiser never sees."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image of a data set."""

    image: Path
    category: str
    """What the part is, for example `bolt`."""
    kind: str = "good"
    """`good`, or the name of the defect."""
    split: Split | None = None
    """None: not yet assigned, because the layout has no splits."""
    mask: Path | None = None
    """File of the defect's mask; None for sound parts and for defects without a mask."""
    group: str | None = None
    """All images of a group, for example of one physical part, go into the same split."""

    @property
    def defective(self) -> bool:
        return self.kind != "good"


class Decision(StrEnum):
    """What happens to a part; on RE-INSPECT a person decides."""

    OK = "OK"
    REINSPECT = "RE-INSPECT"
    NG = "NG"


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """Two thresholds on the calibrated score: above `reinspect` a part is RE-INSPECT, above `reject` NG."""

    reinspect: float
    reject: float

    @property
    def highest_allowed(self) -> float:
        """Highest threshold that a person may choose instead of these: clear defects score above it."""
        return round(max(2.0, 2 * self.reject), 1)

    def decide(self, score: float) -> Decision:
        """Return the decision for a score. NaN gives NG, since every comparison with NaN is false."""
        if score <= self.reinspect:
            return Decision.OK
        return Decision.REINSPECT if score <= self.reject else Decision.NG


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A connected region above the threshold, in pixels of the original image."""

    x: int
    y: int
    width: int
    height: int
    area: int
    """Number of pixels above the threshold."""
    peak: float
    """Largest calibrated heat, at (`peak_x`, `peak_y`)."""
    peak_x: int
    peak_y: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """The result of inspecting one image."""

    score: float
    decision: Decision
    heatmap: Heatmap
    """At the model's resolution; `overlay.enlarge` resizes it to the image's."""
    regions: tuple[Region, ...]
    thresholds: Thresholds
    image: str | None = None
    """Path of the image file as given; None for arrays."""
    image_size: tuple[int, int] = (0, 0)
    """(width, height) of the original."""
    milliseconds: float = 0.0
    """Wall time of alignment, resize and model, without reading the file."""
    category: str | None = None
    """The category whose alignment and tiles were used; None if all categories share them."""
    cause: str | None = None
    """`not_found` if the part was not found in its image and is NG for that; `explanation` says why."""
    explanation: str | None = None
    frame: FrameOutline | None = None
    """Outline of the inspected frame where the part was aligned; None where the whole image was inspected."""

    def to_json(self) -> dict[str, Any]:
        """Return everything but heatmap and frame, ready for `json.dumps`; category and cause only where they are set."""
        return {
            "image": self.image,
            "score": round(self.score, 6),
            "decision": str(self.decision),
            "thresholds": asdict(self.thresholds),
            "image_size": list(self.image_size),
            "regions": [asdict(region) | {"peak": round(region.peak, 6)} for region in self.regions],
            "milliseconds": round(self.milliseconds, 3),
            **({"category": self.category} if self.category else {}),
            **self.cause_to_json(),
        }

    def cause_to_json(self) -> dict[str, str | None]:
        """Return why the part is NG, where that is not its score alone."""
        return {"cause": self.cause, "explanation": self.explanation} if self.cause else {}
