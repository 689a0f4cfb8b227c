"""Target `openvino`: the same ONNX file as target `onnx` writes, run by OpenVINO on Intel's processors and graphics.

Unusual here: the precision is always set, because by default OpenVINO uses bf16 where the processor has it, which changes decisions.
The bytes are first checked for references to other files, because OpenVINO would read those files.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inspect_kd.errors import BadInput, EnvironmentFault, InspectKDError
from inspect_kd.export import to_onnx
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.options import DEFAULTS, RuntimeOptions
from inspect_kd.export.wire import card_text, refuse_external_data
from inspect_kd.types import BatchPrediction

if TYPE_CHECKING:
    from inspect_kd.export.graph import ArtifactGraph

SUFFIX = ".openvino.onnx"
DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU"}


def export(graph: ArtifactGraph, to: Path, *, card: ArtifactCard, opset: int) -> None:
    """Export as ONNX, which OpenVINO reads; its own format would need a second verification."""
    to_onnx.export(graph, to, card=card, opset=opset)


def write_card(path: Path, card: ArtifactCard) -> None:
    to_onnx.write_card(path, card)


class Runtime:
    """One compiled model; thread-safe, because each call makes its own inference request."""

    def __init__(self, data: bytes, where: str, options: RuntimeOptions = DEFAULTS) -> None:
        openvino = _import_openvino()
        self.where = where
        refuse_external_data(data, where)
        self.card = ArtifactCard.parse(card_text(data, where), where)
        self.size = self.card.size
        core = openvino.Core()
        device = _choose_device(core, options.device, allow_cpu=options.allow_cpu)
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            properties |= {"INFERENCE_NUM_THREADS": options.threads, "ENABLE_CPU_PINNING": False}
        try:
            model = _read_onnx(data)
            self.weights_side = _check_inputs_and_outputs(
                model, self.size, where, has_zones=self.card.image_presentations.has_zones
            )
            self.compiled = core.compile_model(model, device, properties)
        except InspectKDError:
            raise
        except Exception as error:
            # OpenVINO raises RuntimeError for everything.
            raise BadInput(f"{where}: not an ONNX file that OpenVINO can read ({to_onnx.one_line(error)})") from error

    def predict_batch(
        self, images_NHW3: npt.NDArray[np.uint8], weights_N1hw: npt.NDArray[np.float32] | None = None
    ) -> BatchPrediction:
        if len(images_NHW3) == 0:
            raise BadInput("an empty batch")
        inputs = to_onnx.graph_inputs(images_NHW3, weights_N1hw, self.weights_side, self.where)
        try:
            outputs = self.compiled.create_infer_request().infer(inputs)
            score, heatmap = np.array(outputs["score"]), np.array(outputs["heatmap"])
        except Exception as error:
            raise BadInput(f"{self.where}: OpenVINO could not run it ({to_onnx.one_line(error)})") from error
        return to_onnx.check_outputs(score, heatmap, images_NHW3.shape, self.where)


def _import_openvino() -> Any:
    try:
        import openvino  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise EnvironmentFault("OpenVINO is not installed: pip install 'inspect-kd[openvino]'") from error
    return openvino


def _choose_device(core: Any, device: str, *, allow_cpu: bool) -> str:
    """Return OpenVINO's name of the requested device; if it is missing, the CPU's with `allow_cpu`, otherwise an error."""
    if device not in DEVICES:
        raise BadInput(f"no device '{device}' in OpenVINO; choose one of: {', '.join(DEVICES)}")
    available: list[str] = core.available_devices
    requested = DEVICES[device]
    if any(name == requested or name.startswith(f"{requested}.") for name in available):
        return requested
    if allow_cpu:
        return "CPU"
    raise EnvironmentFault(
        f"requested OpenVINO's {requested}, but it finds only {', '.join(available)}; install its driver, or pass --allow-cpu"
    )


def _read_onnx(data: bytes) -> Any:
    """Read with the ONNX front end alone: `Core.read_model` tries seven formats on the same bytes."""
    from openvino.frontend import FrontEndManager  # type: ignore[import-untyped, unused-ignore]

    reader = FrontEndManager().load_by_framework("onnx")
    return reader.convert(reader.load(io.BytesIO(data)))


def _check_inputs_and_outputs(model: Any, size: int, where: str, *, has_zones: bool) -> int | None:
    """Refuse a file whose inputs and outputs contradict its card; return the side of its zones' weights, None without zones."""
    types = {"u8": "tensor(uint8)", "f32": "tensor(float)"}
    inputs = [
        (
            each.any_name,
            types.get(each.element_type.get_type_name(), ""),
            [int(length.get_length()) if length.is_static else None for length in each.partial_shape],
        )
        for each in model.inputs
    ]
    outputs = {output.any_name for output in model.outputs}
    return to_onnx.check_inputs_and_outputs(inputs, outputs, size, where, has_zones=has_zones)
