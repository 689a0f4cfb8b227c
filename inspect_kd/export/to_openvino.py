"""Target `openvino`: the graph and file of target `onnx`, run by OpenVINO on Intel's processors and graphics.

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
            _check_inputs_and_outputs(model, self.size, where)
            self.compiled = core.compile_model(model, device, properties)
        except InspectKDError:
            raise
        except Exception as error:
            # OpenVINO raises RuntimeError for everything.
            raise BadInput(f"{where}: not an ONNX file that OpenVINO can read ({to_onnx.one_line(error)})") from error

    def predict_batch(self, images_NHW3: npt.NDArray[np.uint8]) -> BatchPrediction:
        if len(images_NHW3) == 0:
            raise BadInput("an empty batch")
        try:
            outputs = self.compiled.create_infer_request().infer({"images": np.ascontiguousarray(images_NHW3)})
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


def _check_inputs_and_outputs(model: Any, size: int, where: str) -> None:
    """Refuse a file whose inputs and outputs contradict its card."""
    names = {output.any_name for output in model.outputs}
    inputs = model.inputs
    is_consistent = (
        len(inputs) == 1
        and inputs[0].any_name == "images"
        and inputs[0].element_type.get_type_name() == "u8"
        and [int(d.get_length()) for d in list(inputs[0].partial_shape)[1:] if d.is_static] == [size, size, 3]
        and {"heatmap", "score"} <= names
    )
    if not is_consistent:
        raise BadInput(f"{where}: its inputs and outputs are not those of an inspect-kd artifact of size {size}")
