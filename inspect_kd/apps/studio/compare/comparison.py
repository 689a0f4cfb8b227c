"""Two artifacts on the same parts: the session's own, and a second one with its own thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from inspect_kd.apps.studio.inspect.parts import Part, write_heat_layer
from inspect_kd.datasets.images import decode_image
from inspect_kd.types import Decision, Heatmap, Inspection, Thresholds

if TYPE_CHECKING:
    from inspect_kd.apps.studio.session import Session


@dataclass(frozen=True, slots=True)
class SecondPrediction:
    """Score and heatmap of a part by the second artifact."""

    score: float
    heat: Path
    layer: Path

    def heatmap(self) -> Heatmap:
        """Read the stored heatmap."""
        stored: Heatmap = np.load(self.heat, allow_pickle=False)
        return stored

    def remove_files(self) -> None:
        for path in (self.heat, self.layer):
            path.unlink(missing_ok=True)


class ArtifactComparison:
    """The predictions of a second artifact for the parts of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.artifact: str | None = None
        self.predictions: dict[int, SecondPrediction] = {}

    def run(self, artifact: str) -> Iterator[int]:
        """Inspect every part with another artifact; yield the number of parts done."""
        session, inspector = self.session, self.session.library.open(artifact)
        with session.lock:
            self.clear()
            # Of this comparison alone: one that was stopped may still write its last prediction into the former dictionary.
            self.artifact, predictions = artifact, self.predictions
        for done, part in enumerate(session.all_parts(), 1):
            session.touch()
            session.check_disk(0)
            # A new address each time: the browser caches pictures by their address.
            stem = f"{part.number:05d}-{session.next_number()}-second"
            heat, layer = session.folders.private / f"{stem}.npy", session.folders.served / f"{stem}.png"
            with session.refuse_if_closed():
                inspection = inspector(decode_image(part.original.read_bytes(), part.name, bits=inspector.card.bits))
                np.save(heat, inspection.heatmap, allow_pickle=False)
                write_heat_layer(layer, inspection.heatmap)
            predictions[part.number] = SecondPrediction(inspection.score, heat, layer)
            yield done

    def thresholds(self) -> Thresholds:
        """The second artifact's own thresholds: those of the session's category, where it has that category."""
        calibration = self.session.library.open(self.artifact).card.calibration
        category = self.session.category
        return calibration.for_category(category if category in calibration.limits else None).thresholds

    def decisions(self) -> list[tuple[Part, Decision, Decision]]:
        """Each compared part with the decisions of the first and of the second artifact."""
        first, second = self.session.thresholds, self.thresholds()
        return [
            (part, first.decide(part.score), second.decide(self.predictions[part.number].score))
            for part in self.session.all_parts()
            if part.number in self.predictions
        ]

    def inspection(self, part: Part) -> Inspection:
        """A part as the second artifact decides it."""
        prediction, thresholds = self.predictions[part.number], self.thresholds()
        heatmap = prediction.heatmap()
        inspector = self.session.library.open(self.artifact)
        return Inspection(
            score=prediction.score,
            decision=thresholds.decide(prediction.score),
            heatmap=heatmap,
            regions=inspector.regions(prediction.score, heatmap, thresholds, part.image_size),
            thresholds=thresholds,
            image_size=part.image_size,
        )

    def clear(self) -> None:
        """Forget the second artifact and remove its files."""
        for prediction in list(self.predictions.values()):
            prediction.remove_files()
        self.predictions, self.artifact = {}, None
