"""Compare the session's artifact with a second one, which has its own thresholds, on the same parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.inspect.parts import Location, Part, read_heatmap, rebuild_inspection, write_heatmap
from inspect_kd.datasets.images import decode_image
from inspect_kd.errors import UsageError
from inspect_kd.types import Decision, Inspection, Thresholds

if TYPE_CHECKING:
    from inspect_kd.apps.studio.session import Session


@dataclass(frozen=True, slots=True)
class SecondPrediction:
    """The second artifact's prediction for a part: score, location and heatmap."""

    score: float
    location: Location
    heatmap_file: Path
    heat_layer: Path

    def remove_files(self) -> None:
        for path in (self.heatmap_file, self.heat_layer):
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
            self.artifact, predictions, generation = artifact, self.predictions, session.generation
            category = session.category if session.category in inspector.card.categories else None
        for done, part in enumerate(session.all_parts(), 1):
            self._check_running(predictions)
            session.touch()
            session.check_disk(0)
            # A new name each time: browsers cache pictures by address.
            stem = f"{part.number:05d}-{session.next_number()}-second"
            heatmap_file, heat_layer = session.folders.private / f"{stem}.npy", session.folders.served / f"{stem}.png"
            with session.refuse_if_stopped(generation):
                image = decode_image(part.original.read_bytes(), part.name, bits=inspector.card.bits)
                inspection = inspector(image, category=category)
                session.check_disk(inspection.heatmap.nbytes)
                write_heatmap(heatmap_file, heat_layer, inspection.heatmap)
            prediction = SecondPrediction(inspection.score, Location.of(inspection), heatmap_file, heat_layer)
            with session.lock:
                if predictions is not self.predictions:
                    prediction.remove_files()
                self._check_running(predictions)
                predictions[part.number] = prediction
            yield done

    def _check_running(self, predictions: dict[int, SecondPrediction]) -> None:
        """Raise if the comparison that fills these predictions was stopped: `clear` then replaces the dictionary."""
        if predictions is not self.predictions:
            raise UsageError(texts.COMPARISON_STOPPED)

    def thresholds(self) -> Thresholds:
        """The second artifact's thresholds for the session's category; for all categories together if it does not have that one."""
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
        """The second artifact's decision and regions for a part."""
        prediction, inspector = self.predictions[part.number], self.session.library.open(self.artifact)
        heatmap = read_heatmap(prediction.heatmap_file)
        return rebuild_inspection(
            inspector, self.thresholds(), prediction.score, heatmap, part.image_size, prediction.location
        )

    def clear(self) -> None:
        """Forget the second artifact and its predictions; remove their files."""
        for prediction in list(self.predictions.values()):
            prediction.remove_files()
        self.predictions, self.artifact = {}, None
