"""Precision int8: convolutions of a finished file compute in bytes, wherever that leaves the answers alone.

Static, QDQ, ranges from sound parts. Unusual here: which convolutions stay in fp32 is measured, not guessed. Each is quantised
by itself first, on sound parts and their drawn damaged twins; then as many as possible together, the harmless ones first,
until a score would move further than it may. Only convolutions: attention, distances and smoothing lose decisions in bytes.
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

from inspect_kd import config
from inspect_kd.errors import BadInput
from inspect_kd.export import to_onnx
from inspect_kd.export.options import DEFAULTS
from inspect_kd.export.verify import Images
from inspect_kd.types import BatchPrediction, Progress

BATCH = 4


class Quantise(config.Strict):
    """How a file comes to compute in bytes."""

    sound: int = Field(64, ge=8)
    """Sound parts from which the ranges are taken: of training, never defective ones, which would widen the ranges."""
    checked: int = Field(12, ge=2)
    """Held-out sound parts, each with its damaged twin, on which the change is measured."""
    score: float = Field(0.02, gt=0)
    """Largest change of a score on those that is allowed for, on the calibrated scale; well below what is accepted."""
    symmetric: bool = False
    """Signed bytes around zero, as TensorRT wants them."""
    narrow: bool = True
    """Seven bits for weights: with eight, processors without VNNI saturate, and answers differ between machines."""


@dataclass(frozen=True, slots=True)
class Left:
    """A convolution that stayed in fp32."""

    node: str
    heatmap: float
    """Mean change of the heatmap when it alone computes in bytes."""


@dataclass(frozen=True, slots=True)
class Quantised:
    convolutions: int
    left: tuple[Left, ...]
    score: float
    """Largest change of a score on the parts that were checked."""


def quantise(file: Path, sound_N: Images, checked_N: Images, settings: Quantise, progress: Progress) -> Quantised:
    """Rewrite the file; raises where not one convolution may compute in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        work = _Work(Path(folder), file, sound_N, settings)
        names = work.convolutions()
        before = _answers(file.read_bytes(), checked_N)
        progress.phase("quantise", len(names) + 1)
        alone = {}
        for name in names:
            alone[name] = _moved(before, _answers(work.quantised([name]), checked_N))[1]
            progress.advance(1, heatmap=alone[name])
        harmless_first = sorted(names, key=lambda name: alone[name])
        count, score = _most(work, harmless_first, before, checked_N, settings.score)
        if count == 0:
            raise BadInput(f"int8: none of {len(names)} convolutions may compute in bytes without moving a score")
        file.write_bytes(work.quantised(harmless_first[:count]))
        progress.advance()
    left = tuple(Left(name, alone[name]) for name in reversed(harmless_first[count:]))
    return Quantised(convolutions=len(names), left=left, score=score)


def _most(
    work: _Work, names: Sequence[str], before: BatchPrediction, checked_N: Images, limit: float
) -> tuple[int, float]:
    """How many of the harmless ones together stay within the limit, by halving; and how far a score then moves."""
    fine, too_many, moved = 0, len(names) + 1, 0.0
    while too_many - fine > 1:
        count = (fine + too_many) // 2
        score, _ = _moved(before, _answers(work.quantised(names[:count]), checked_N))
        if score <= limit:
            fine, moved = count, score
        else:
            too_many = count
    return fine, moved


class _Work:
    """One file's preparation and ranges, shared by all its versions."""

    def __init__(self, folder: Path, file: Path, sound_N: Images, settings: Quantise) -> None:
        from onnxruntime.quantization import quant_pre_process

        self.settings, self.sound_N = settings, sound_N
        self.prepared, self.made = folder / "prepared.onnx", folder / "made.onnx"
        self.ranges = folder / "ranges.json"
        # Shapes alone: its optimiser writes out constants that ONNX Runtime folds when it loads, and the file grows.
        quant_pre_process(str(file), str(self.prepared), skip_optimization=True, skip_symbolic_shape=True)

    def convolutions(self) -> list[str]:
        return [node.name for node in onnx.load(str(self.prepared)).graph.node if node.op_type == "Conv"]

    def quantised(self, nodes: list[str] | Sequence[str]) -> bytes:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        byte = QuantType.QInt8 if self.settings.symmetric else QuantType.QUInt8
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it warns of its own temporary files through the root logger
        try:
            quantize_static(
                str(self.prepared),
                str(self.made),
                _reader(self.sound_N),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_quantize=list(nodes),
                per_channel=True,
                reduce_range=self.settings.narrow,
                activation_type=byte,
                weight_type=QuantType.QInt8,
                # TensorRT knows bytes around zero alone, and biases as plain numbers.
                extra_options={
                    "ActivationSymmetric": self.settings.symmetric,
                    "QuantizeBias": not self.settings.symmetric,
                },
                calibration_cache_path=self.ranges,
            )
        finally:
            root.setLevel(level)
        return self.made.read_bytes()


def _reader(images_NHW3: Images) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.parts: Iterator[Images] = (
                images_NHW3[start : start + BATCH] for start in range(0, len(images_NHW3), BATCH)
            )

        def get_next(self) -> dict[str, Images] | None:
            part = next(self.parts, None)
            return None if part is None else {"images": part}

    return Reader()


def _answers(data: bytes, images_NHW3: Images) -> BatchPrediction:
    session = to_onnx.open_session(data, "int8", DEFAULTS)
    told = [
        session.run(["heatmap", "score"], {"images": images_NHW3[start : start + BATCH]})
        for start in range(0, len(images_NHW3), BATCH)
    ]
    return BatchPrediction(
        np.concatenate([score for _, score in told]), np.concatenate([heat[:, 0] for heat, _ in told])
    )


def _moved(before: BatchPrediction, after: BatchPrediction) -> tuple[float, float]:
    """Largest change of a score, mean change of the heatmap; infinite where an answer is no number."""
    return _or_infinite(np.abs(before.scores_N - after.scores_N).max()), _or_infinite(
        np.abs(before.heatmaps_NHW - after.heatmaps_NHW).mean()
    )


def _or_infinite(value: npt.NDArray[np.float32] | np.floating[Any]) -> float:
    return float(value) if np.isfinite(value) else float("inf")
