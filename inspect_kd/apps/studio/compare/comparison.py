"""Compare the session's artifact with a second one, which has its own thresholds, on the same parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inspect_kd.apps.studio.inspect.parts import Part, read_heatmap, stored_inspection, write_heatmap
from inspect_kd.datasets.images import decode_image
from inspect_kd.types import Decision, Inspection, Thresholds

if TYPE_CHECKING:
    from inspect_kd.apps.studio.session import Session


@dataclass(frozen=True, slots=True)
class SecondPrediction:
    """Score and heatmap of a part by the second artifact."""

    score: float
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
            # A stopped comparison may still write its last prediction, but only into its own dictionary.
            self.artifact, predictions = artifact, self.predictions
        for done, part in enumerate(session.all_parts(), 1):
            session.touch()
            session.check_disk(0)
            # A new name each time: browsers cache pictures by address.
            stem = f"{part.number:05d}-{session.next_number()}-second"
            heatmap_file, heat_layer = session.folders.private / f"{stem}.npy", session.folders.served / f"{stem}.png"
            with session.refuse_if_closed():
                inspection = inspector(decode_image(part.original.read_bytes(), part.name, bits=inspector.card.bits))
                write_heatmap(heatmap_file, heat_layer, inspection.heatmap)
            predictions[part.number] = SecondPrediction(inspection.score, heatmap_file, heat_layer)
            yield done

    def thresholds(self) -> Thresholds:
        """The second artifact's thresholds: those of the session's category if it has that category, otherwise those of all."""
        calibration = self.session.library.open(self.artifact).card.calibration
        category = self.session.category
        return calibration.for_category(category if category in calibration.limits else None).thresholds

    def decisions(self) -> list[tuple[Part, Decision, Decision]]:
        """Each compared part with the decisions of both artifacts."""
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
        return stored_inspection(inspector, self.thresholds(), prediction.score, heatmap, part.image_size)

    def clear(self) -> None:
        """Forget the second artifact and remove its files."""
        for prediction in list(self.predictions.values()):
            prediction.remove_files()
        self.predictions, self.artifact = {}, None
