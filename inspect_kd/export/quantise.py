"""Quantise as many convolutions of an ONNX file to int8 as possible without changing its scores by more than a limit.

The quantisation is static, in QDQ format, with ranges from sound images. Unusual here: a measurement decides which convolutions stay
in fp32. Each is first quantised alone, to measure its harm on sound and synthetic images. Then as many as possible are quantised
together, the least harmful first, within a limit on the change of a score. Int8 attention, distances or smoothing would change
decisions.

Shapes: N images.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from pydantic import Field

from inspect_kd.errors import BadInput
from inspect_kd.export import to_onnx
from inspect_kd.export.options import DEFAULTS
from inspect_kd.export.verify import WeightedImages
from inspect_kd.strict_model import StrictModel
from inspect_kd.types import BatchPrediction, Progress

BATCH = 4
"""Images that are predicted at once."""


class QuantiseSettings(StrictModel):
    """Settings of the quantisation."""

    sound: int = Field(64, ge=8)
    """Number of sound training images from which the ranges are estimated; defective ones would widen the ranges."""
    checked: int = Field(12, ge=2)
    """Number of held-out sound images on which the change is measured, each without and with a synthetic defect."""
    score: float = Field(0.02, gt=0)
    """Largest change of a score on the `checked` images, on the calibrated scale; well below the acceptance limit."""
    symmetric: bool = False
    """Quantise activations as signed numbers symmetric around zero, as TensorRT needs them."""
    narrow: bool = True
    """Seven bits for weights: with eight, processors without VNNI saturate, and results differ between machines."""


@dataclass(frozen=True, slots=True)
class Fp32Convolution:
    """A convolution that stayed in fp32."""

    node: str
    heatmap: float
    """Mean change of the heatmap if this convolution alone is quantised."""


@dataclass(frozen=True, slots=True)
class QuantisationResult:
    """What was quantised, and how much the scores changed."""

    convolutions: int
    """Number of all convolutions."""
    left: tuple[Fp32Convolution, ...]
    """Convolutions that stayed in fp32, the most harmful first."""
    score: float
    """Largest change of a score on the checked images."""


def quantise(
    file: Path, sound_N: WeightedImages, checked_N: WeightedImages, settings: QuantiseSettings, progress: Progress
) -> QuantisationResult:
    """Quantise the file in place; raises where no convolution can be quantised within the limit."""
    with tempfile.TemporaryDirectory() as folder:
        quantiser = _Quantiser(Path(folder), file, sound_N, settings)
        names = quantiser.convolutions()
        before = _predict(file.read_bytes(), checked_N)
        progress.phase("quantise", len(names) + 1)
        change_of = {}  # by name: mean change of the heatmap if this convolution alone is quantised
        for name in names:
            change_of[name] = _measure_changes(before, _predict(quantiser.quantise([name]), checked_N))[1]
            progress.advance(1, heatmap=change_of[name])
        least_harmful_first = sorted(names, key=lambda name: change_of[name])
        count, score = _count_within_limit(quantiser, least_harmful_first, before, checked_N, settings.score)
        if count == 0:
            raise BadInput(
                f"int8: none of {len(names)} convolutions can be quantised within the allowed change of a score"
            )
        file.write_bytes(quantiser.quantise(least_harmful_first[:count]))
        progress.advance()
    left = tuple(Fp32Convolution(name, change_of[name]) for name in reversed(least_harmful_first[count:]))
    return QuantisationResult(convolutions=len(names), left=left, score=score)


def _count_within_limit(
    quantiser: _Quantiser, names: Sequence[str], before: BatchPrediction, checked_N: WeightedImages, limit: float
) -> tuple[int, float]:
    """Find by bisection how many of the first convolutions stay within the limit together; return that count and the change of a score."""
    largest_within, smallest_beyond, change = 0, len(names) + 1, 0.0
    while smallest_beyond - largest_within > 1:
        count = (largest_within + smallest_beyond) // 2
        score, _ = _measure_changes(before, _predict(quantiser.quantise(names[:count]), checked_N))
        if score <= limit:
            largest_within, change = count, score
        else:
            smallest_beyond = count
    return largest_within, change


class _Quantiser:
    """Makes quantised versions of one file; the file is prepared and its ranges are measured only once."""

    def __init__(self, folder: Path, file: Path, sound_N: WeightedImages, settings: QuantiseSettings) -> None:
        from onnxruntime.quantization import quant_pre_process

        self.settings, self.sound_N = settings, sound_N
        self.prepared_file, self.output_file = folder / "prepared.onnx", folder / "output.onnx"
        self.ranges_file = folder / "ranges.json"
        # Shape inference only: the optimiser would store constants that ONNX Runtime folds at loading, and the file would grow.
        quant_pre_process(str(file), str(self.prepared_file), skip_optimization=True, skip_symbolic_shape=True)

    def convolutions(self) -> list[str]:
        return [node.name for node in onnx.load(str(self.prepared_file)).graph.node if node.op_type == "Conv"]

    def quantise(self, nodes: Sequence[str]) -> bytes:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        activation = QuantType.QInt8 if self.settings.symmetric else QuantType.QUInt8
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # quantize_static logs warnings about its temporary files to the root logger
        try:
            quantize_static(
                str(self.prepared_file),
                str(self.output_file),
                _calibration_reader(self.sound_N),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_quantize=list(nodes),
                per_channel=True,
                reduce_range=self.settings.narrow,
                activation_type=activation,
                weight_type=QuantType.QInt8,
                # TensorRT needs symmetric activations and unquantised biases.
                extra_options={
                    "ActivationSymmetric": self.settings.symmetric,
                    "QuantizeBias": not self.settings.symmetric,
                },
                calibration_cache_path=self.ranges_file,
            )
        finally:
            root.setLevel(level)
        return self.output_file.read_bytes()


def _calibration_reader(sound_N: WeightedImages) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[to_onnx.GraphInputs] = _graph_inputs(sound_N)

        def get_next(self) -> to_onnx.GraphInputs | None:
            return next(self.batches, None)

    return Reader()


def _graph_inputs(images_N: WeightedImages) -> Iterator[to_onnx.GraphInputs]:
    """Yield the inputs of an ONNX Runtime session, batch by batch."""
    for start in range(0, len(images_N.images_NHW3), BATCH):
        names = ("images", "weights")
        yield dict(zip(names, images_N.batch(start, BATCH).arguments(), strict=False))


def _predict(data: bytes, images_N: WeightedImages) -> BatchPrediction:
    session = to_onnx.open_session(data, "int8", DEFAULTS)
    outputs = [session.run(["heatmap", "score"], inputs) for inputs in _graph_inputs(images_N)]
    return BatchPrediction(
        np.concatenate([score for _, score in outputs]), np.concatenate([heat[:, 0] for heat, _ in outputs])
    )


def _measure_changes(before: BatchPrediction, after: BatchPrediction) -> tuple[float, float]:
    """Return the largest change of a score and the mean change of the heatmap; infinite if a value is not finite."""
    score = np.abs(before.scores_N - after.scores_N).max()
    heatmap = np.abs(before.heatmaps_NHW - after.heatmaps_NHW).mean()
    return _or_infinite(score), _or_infinite(heatmap)


def _or_infinite(value: npt.NDArray[np.float32] | np.floating[Any]) -> float:
    return float(value) if np.isfinite(value) else float("inf")
