"""Inspect images with an exported artifact. Runs on the line: NumPy, OpenCV and a runtime, never torch.

from inspect_kd import Inspector
inspector = Inspector("part.onnx")
inspection = inspector("line3/0001.png")
print(inspection.decision, inspection.score, inspection.regions)
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inspect_kd import registry, sign_off
from inspect_kd.datasets.images import as_rgb8, read_image
from inspect_kd.datasets.presentation import predict_image
from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.options import RuntimeOptions
from inspect_kd.overlay import regions_to_show
from inspect_kd.plain_file import read_plain_file
from inspect_kd.quarantine import admit
from inspect_kd.resize import RESIZE
from inspect_kd.signing import MAX_ARTIFACT_BYTES, SignedKind, Signer, load_signers, verify_bytes
from inspect_kd.types import NOT_FOUND, BatchPrediction, Heatmap, Inspection, Region, Thresholds

ImageSource = str | Path | npt.NDArray[np.generic]
"""An image's path, or its pixels."""


class Inspector:
    """An artifact, loaded and ready to inspect images. Safe to call from several threads."""

    def __init__(
        self,
        artifact: str | Path,
        *,
        category: str | None = None,
        thresholds: Thresholds | None = None,
        calibration: str | Path | None = None,
        device: str = "cpu",
        threads: int = 1,
        allow_cpu: bool = False,
        options: RuntimeOptions | None = None,
        bgr: bool = False,
        trust: str | Path | None = None,
        quarantine: bool = True,
    ) -> None:
        """Load an artifact.

        `category` selects that category's thresholds; without it the pooled ones are used. `calibration` is a file of
        thresholds that a person signed off for this artifact. `bgr`: arrays have OpenCV's channel order. `options` replaces
        `device`, `threads` and `allow_cpu`.

        `trust`: a public key, or a folder of them; an artifact or a calibration that is not signed with one of them is refused unread.
        Without `trust`, an artifact that is new on this machine is first opened in a child process (`inspect_kd.quarantine`);
        `quarantine=False` skips that, for your own files and for programs that cannot start a Python process.
        """
        path = Path(artifact)
        target = registry.target_of(path)
        runtime = registry.load("export", f"to_{target}").Runtime
        content = _read_artifact(path)
        trusted = None if trust is None else load_signers(Path(trust))
        if trusted is not None:
            verify_bytes(content, path, trusted, SignedKind.ARTIFACT)
        elif quarantine:
            admit(content, path, target)
        self.digest = hashlib.sha256(content).hexdigest()
        """SHA-256 of the artifact's file, which a signed-off calibration must contain."""
        options = options or RuntimeOptions(device=device, threads=threads, allow_cpu=allow_cpu)
        self.model = runtime(content, str(path), options)
        self.card: ArtifactCard = self.model.card
        if self.card.resize != RESIZE:
            raise EnvironmentFault(
                f"{path}: needs images resized by '{self.card.resize}', this program has '{RESIZE}': update inspect-kd"
            )
        requested_category = category
        if category is None and len(self.card.categories) == 1:
            category = self.card.categories[0]
        self.category = category
        self.thresholds = thresholds or self.card.calibration.for_category(category).thresholds
        if calibration is not None:
            self.thresholds = self._load_signed_off(Path(calibration), requested_category, trusted)
        self.presentations = self.card.image_presentations
        self.bgr = bgr

    @property
    def size(self) -> int:
        return self.card.size

    @property
    def weights_side(self) -> int | None:
        """Side of the grid of zones' weights that the artifact takes; None for an artifact without zones."""
        side: int | None = self.model.weights_side
        return side

    def warm_up(self, batches: Iterable[int] = (1,)) -> None:
        """Run each batch size once: the first run allocates memory, and on a GPU it also compiles."""
        for count in batches:
            self.predict_batch(np.zeros((count, self.size, self.size, 3), np.uint8))

    def predict_batch(
        self, images_NHW3: npt.NDArray[np.uint8], weights_N1hw: npt.NDArray[np.float32] | None = None
    ) -> BatchPrediction:
        """Run the model on images that already have its input size; without weights every place counts as inspected."""
        inputs = (images_NHW3,) if weights_N1hw is None else (images_NHW3, weights_N1hw)
        predictions: BatchPrediction = self.model.predict_batch(*inputs)
        return predictions

    def __call__(self, source: ImageSource, *, category: str | None = None) -> Inspection:
        """Inspect one image: a path or an array (mono, RGB or RGBA; 8 or 16 bit).

        `category` selects alignment and tiles for this image alone; the thresholds stay the inspector's.
        """
        image, category = self._read(source), category or self.category
        self.presentations.check_size(image, _name(source), category)
        start = time.perf_counter()
        predicted = predict_image(self, self.presentations, image, category)
        elapsed = (time.perf_counter() - start) * 1000
        score, heatmap = predicted.score, predicted.heatmap
        if not (np.isfinite(score) and np.isfinite(heatmap).all()):
            raise BadInput(f"{_name(source)}: the artifact's score or heatmap is not finite; treat the part as NG")
        height, width = image.shape[:2]
        return Inspection(
            score=score,
            decision=self.thresholds.decide(score),
            heatmap=heatmap,
            regions=self.regions(score, heatmap, self.thresholds, (width, height)),
            thresholds=self.thresholds,
            image=None if isinstance(source, np.ndarray) else str(source),
            image_size=(width, height),
            milliseconds=elapsed,
            category=predicted.category,
            cause=None if predicted.not_found is None else NOT_FOUND,
            explanation=predicted.not_found,
            frame=predicted.frame,
        )

    def each(self, sources: Iterable[ImageSource]) -> Iterator[Inspection | BadInput]:
        """Inspect many images; an unreadable one yields its error instead, and the rest are still inspected."""
        for source in sources:
            try:
                yield self(source)
            except BadInput as error:
                yield error

    def regions(
        self, score: float, heatmap: Heatmap, thresholds: Thresholds, image_size: tuple[int, int]
    ) -> tuple[Region, ...]:
        """Find the regions to show for an earlier prediction, under any thresholds."""
        return regions_to_show(score, heatmap, thresholds.reinspect, image_size, model_input_pixels=self.size**2)

    def _load_signed_off(self, path: Path, category: str | None, trusted: list[Signer] | None) -> Thresholds:
        content = sign_off.read_bytes(path)
        if trusted is not None:
            verify_bytes(content, path, trusted, SignedKind.SIGN_OFF)
        artifact_thresholds = self.card.calibration.for_category(self.category).thresholds
        signed = sign_off.parse_sign_off(content, path)
        return signed.thresholds_for(self.digest, category, artifact_thresholds, self.card.categories)

    def _read(self, source: ImageSource) -> npt.NDArray[np.uint8]:
        if not isinstance(source, np.ndarray):
            return read_image(Path(source), bits=self.card.bits)
        image = as_rgb8(source, bits=self.card.bits)
        return np.ascontiguousarray(image[:, :, ::-1]) if self.bgr else image


def _read_artifact(path: Path) -> bytes:
    if path.is_dir():
        raise BadInput(f"{path}: no such artifact; a run's artifact lies in its folder as <run>.onnx")
    return read_plain_file(path, "artifact", MAX_ARTIFACT_BYTES)


def _name(source: ImageSource) -> str:
    """Return the name of an image in errors."""
    return "array" if isinstance(source, np.ndarray) else str(source)
