"""Target `onnx`: one file for ONNX Runtime, fp32, dynamic batch, metadata inside.

`export` needs torch; `Runtime`, which runs on the line, does not. Unusual here: the file is loaded from bytes, after a check for
tensors in other files; and a missing execution provider is an error, where ONNX Runtime silently falls back to the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.export.card import KEY, ArtifactCard
from inspect_kd.export.engine_cache import engine_folder
from inspect_kd.export.options import DEFAULTS, RuntimeOptions
from inspect_kd.export.wire import card_text, refuse_external_data
from inspect_kd.types import BatchPrediction

if TYPE_CHECKING:
    from inspect_kd.export.graph import ArtifactGraph

SUFFIX = ".onnx"
MAX_BATCH = 64
PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}


def export(graph: ArtifactGraph, to: Path, *, card: ArtifactCard, opset: int) -> None:
    """Write the graph and its card as one file."""
    import torch
    from torch.export import Dim

    # A batch of two, because the exporter treats a batch of one as a constant.
    examples = [torch.zeros(2, card.size, card.size, 3, dtype=torch.uint8)]
    if card.image_presentations.has_zones:
        side = graph.weights_side(card.size)
        if side is None:
            raise UsageError("this model takes no zones; a student does")
        examples.append(torch.ones(2, 1, side, side))
    # The second input's batch size follows from the first one's; if both had the name, torch would warn.
    batch_sizes = [Dim("batch", min=1, max=MAX_BATCH), Dim.DYNAMIC]
    program = torch.onnx.export(
        graph.eval().cpu(),
        tuple(examples),
        dynamo=True,
        dynamic_shapes=tuple({0: size} for _, size in zip(examples, batch_sizes, strict=False)),
        input_names=["images", "weights"][: len(examples)],
        output_names=["heatmap", "score"],
        opset_version=opset,
        optimize=True,
        verbose=False,
    )
    if program is None:
        raise EnvironmentFault("torch.onnx.export returned no program: this version of torch cannot export dynamically")
    program.save(str(to), external_data=False)
    _rewire_shapes_to_cast(to)
    write_card(to, card)
    written = written_opset(to)
    if written != opset:
        raise EnvironmentFault(f"the exporter wrote opset {written} instead of {opset}")


def _rewire_shapes_to_cast(path: Path) -> None:
    """Make `Shape` nodes read the cast images, because TensorRT cannot read the shape of a uint8 tensor."""
    import onnx

    model = onnx.load(str(path))
    nodes = model.graph.node
    cast_index = next(i for i, node in enumerate(nodes) if node.op_type == "Cast" and node.input[0] == "images")
    cast = nodes.pop(cast_index)
    nodes.insert(0, cast)
    for node in nodes:
        if node.op_type == "Shape" and node.input[0] == "images":
            node.input[0] = cast.output[0]
    onnx.save_model(model, str(path))


def written_opset(path: Path) -> int:
    """Return the file's opset, which the exporter may silently raise."""
    import onnx

    model = onnx.load(str(path))
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def write_card(path: Path, card: ArtifactCard) -> None:
    """Write the card into the file, and remove all other metadata."""
    import onnx

    model = onnx.load(str(path))
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, card.dump()
    # The exporter writes stack traces with this machine's paths into the file.
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, str(path))


class Runtime:
    """An ONNX Runtime session with one artifact; thread-safe."""

    def __init__(self, data: bytes, where: str, options: RuntimeOptions = DEFAULTS) -> None:
        self.where = where
        refuse_external_data(data, where)
        self.card = ArtifactCard.parse(card_text(data, where), where)
        self.size = self.card.size
        self.session = open_session(data, where, options)
        inputs = [(each.name, each.type, list(each.shape)) for each in self.session.get_inputs()]
        outputs = {output.name for output in self.session.get_outputs()}
        self.weights_side = check_inputs_and_outputs(
            inputs, outputs, self.size, where, has_zones=self.card.image_presentations.has_zones
        )
        self.buffers = Buffers(self.session, self.size, self.weights_side, options) if options.bind else None

    def predict_batch(
        self, images_NHW3: npt.NDArray[np.uint8], weights_N1hw: npt.NDArray[np.float32] | None = None
    ) -> BatchPrediction:
        if len(images_NHW3) == 0:
            raise BadInput("an empty batch: ONNX Runtime would return no score and raise no error")
        inputs = graph_inputs(images_NHW3, weights_N1hw, self.weights_side, self.where)
        try:
            if self.buffers is not None:
                heatmap, score = self.buffers.run(inputs)
            else:
                heatmap, score = self.session.run(["heatmap", "score"], inputs)
        except Exception as error:
            raise BadInput(f"{self.where}: ONNX Runtime could not run it ({one_line(error)})") from error
        return check_outputs(score, heatmap, images_NHW3.shape, self.where)


GraphInputs = dict[str, npt.NDArray[Any]]
"""Arrays by the name of their input: `images`, and with zones `weights`."""


def graph_inputs(
    images_NHW3: npt.NDArray[np.uint8],
    weights_N1hw: npt.NDArray[np.float32] | None,
    weights_side: int | None,
    where: str,
) -> GraphInputs:
    """Return the inputs of a graph by name, checked. Without weights every place counts as inspected."""
    inputs: GraphInputs = {"images": np.ascontiguousarray(images_NHW3)}
    if weights_side is None:
        if weights_N1hw is not None:
            raise BadInput(f"{where}: it takes no zones' weights, since it was exported without zones")
        return inputs
    shape = (len(images_NHW3), 1, weights_side, weights_side)
    if weights_N1hw is None:
        weights_N1hw = np.ones(shape, np.float32)
    if weights_N1hw.shape != shape or weights_N1hw.dtype != np.float32:
        raise BadInput(
            f"{where}: zones' weights of {weights_N1hw.dtype} {weights_N1hw.shape}; it takes float32 {shape}"
        )
    return inputs | {"weights": np.ascontiguousarray(weights_N1hw)}


def check_outputs(score: Any, heatmap: Any, images_shape: tuple[int, ...], where: str) -> BatchPrediction:
    """Check types and shapes of a runtime's outputs: they may differ from what the file declares."""
    batch, side = images_shape[0], images_shape[1]
    has_right_types = isinstance(score, np.ndarray) and isinstance(heatmap, np.ndarray)
    has_right_types = has_right_types and score.dtype == heatmap.dtype == np.float32
    if not has_right_types or score.shape != (batch,) or heatmap.shape != (batch, 1, side, side):
        shapes = f"{getattr(score, 'shape', None)} and {getattr(heatmap, 'shape', None)}"
        raise BadInput(f"{where}: for {batch} images it returned scores and heatmaps of shapes {shapes}")
    return BatchPrediction(score, heatmap[:, 0])


class Buffers:
    """Input and output buffers, allocated once per batch size, on the session's device."""

    def __init__(self, session: Any, size: int, weights_side: int | None, options: RuntimeOptions) -> None:
        self.session, self.size, self.weights_side, self.options = session, size, weights_side, options
        self.device = "cpu" if session.get_providers()[0] == "CPUExecutionProvider" else "cuda"
        self.by_batch_size: dict[int, tuple[Any, Any, dict[str, Any], list[Any]]] = {}
        """Binding, run options, input buffers by name, and output buffers."""
        # Two threads in one buffer would get each other's outputs.
        self.lock = threading.Lock()

    def run(self, inputs: GraphInputs) -> list[npt.NDArray[np.float32]]:
        """Return copies of heatmap and score, because the next call overwrites the buffers."""
        with self.lock:
            count = len(inputs["images"])
            if count not in self.by_batch_size:
                self.by_batch_size[count] = self._allocate(count)
            binding, run_options, buffers, outputs = self.by_batch_size[count]
            for name, array in inputs.items():
                buffers[name].update_inplace(array)
            self.session.run_with_iobinding(binding, run_options)
            return [np.array(output.numpy()) for output in outputs]

    def _allocate(self, count: int) -> tuple[Any, Any, dict[str, Any], list[Any]]:
        onnxruntime = import_onnxruntime()

        def allocate(shape: list[int], dtype: type) -> Any:
            return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self.device, 0)

        inputs = {"images": allocate([count, self.size, self.size, 3], np.uint8)}
        if self.weights_side is not None:
            inputs["weights"] = allocate([count, 1, self.weights_side, self.weights_side], np.float32)
        outputs = [allocate([count, 1, self.size, self.size], np.float32), allocate([count], np.float32)]
        binding = self.session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, output in zip(("heatmap", "score"), outputs, strict=True):
            binding.bind_ortvalue_output(name, output)
        run_options = onnxruntime.RunOptions()
        if self.options.cuda_graph:
            # Each batch size has its own CUDA graph.
            run_options.add_run_config_entry("gpu_graph_id", str(count))
        return binding, run_options, inputs, outputs


def import_onnxruntime() -> Any:
    """Import ONNX Runtime, or raise an error that says what to install."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentFault(
            "ONNX Runtime is not installed. On a CPU: pip install 'inspect-kd[cpu]'; with an NVIDIA GPU: "
            "pip install 'inspect-kd[gpu]' (never both: the second overwrites the first)"
        ) from error
    return onnxruntime


def open_session(data: bytes, where: str, options: RuntimeOptions) -> Any:
    """Open a session on the requested execution provider, or with `allow_cpu` on the CPU if that is missing."""
    onnxruntime = import_onnxruntime()
    if options.device not in PROVIDERS:
        raise BadInput(f"no device '{options.device}'; choose one of: {', '.join(PROVIDERS)}")
    if options.device != "cpu" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    requested = PROVIDERS[options.device]
    usable = [provider for provider in requested if provider in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(
            data,
            sess_options=_session_options(onnxruntime, options),
            providers=usable,
            provider_options=[_provider_options(provider, options) for provider in usable],
        )
    except Exception as error:
        # ONNX Runtime raises a dozen classes that share no documented base class.
        raise BadInput(f"{where}: not an ONNX file that ONNX Runtime can run ({one_line(error)})") from error
    obtained = session.get_providers()
    if requested[0] not in obtained and not options.allow_cpu:
        raise EnvironmentFault(
            f"requested {requested[0]}, obtained {', '.join(obtained)}. Install inspect-kd[gpu] and a matching CUDA, "
            "or pass --allow-cpu to run on the CPU on purpose; `inspect-kd doctor` shows what is missing"
        )
    return session


def _session_options(onnxruntime: Any, options: RuntimeOptions) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 4  # only fatal errors
    # By default ONNX Runtime also accepts its own format, which `wire.py` does not check.
    settings.add_session_config_entry("session.load_model_format", "ONNX")
    # Spinning threads starve each other on a small machine: a median of 86 ms instead of 15.5 ms, with two threads.
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spinning)))
    settings.add_session_config_entry("session.set_denormal_as_zero", "1")
    return settings


def _provider_options(provider: str, options: RuntimeOptions) -> dict[str, str]:
    use_cuda_graph = str(int(options.cuda_graph))
    if provider == "CUDAExecutionProvider":
        return {"enable_cuda_graph": use_cuda_graph}
    if provider == "TensorrtExecutionProvider":
        # The provider names its files by model, GPU and version; only this user may write the folder.
        folder = str(engine_folder(options.cache))
        engines = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
        timings = {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
        return engines | timings | {"trt_cuda_graph_enable": use_cuda_graph}
    return {}


def check_inputs_and_outputs(
    inputs: Sequence[tuple[str, str, list[Any]]], outputs: set[str], size: int, where: str, *, has_zones: bool
) -> int | None:
    """Refuse a file whose inputs and outputs contradict its card; return the side of its zones' weights, None without zones.

    `inputs`: name, type and shape of each, types as ONNX Runtime writes them.
    """
    side = inputs[1][2][-1] if has_zones and len(inputs) == 2 and inputs[1][2] else None
    expected: list[tuple[str, str, list[Any]]] = [("images", "tensor(uint8)", [size, size, 3])]
    if has_zones:
        expected.append(("weights", "tensor(float)", [1, side, side]))
    is_consistent = (
        [(name, kind, shape[1:]) for name, kind, shape in inputs] == expected
        and (not has_zones or (type(side) is int and side >= 1 and size % side == 0))
        and {"heatmap", "score"} <= outputs
    )
    if not is_consistent:
        zones = " with zones" if has_zones else ""
        raise BadInput(f"{where}: its inputs and outputs are not those of an inspect-kd artifact of size {size}{zones}")
    return side


def one_line(error: Exception) -> str:
    """Shorten an error's message to one line."""
    return " ".join(str(error).split())[:200]
