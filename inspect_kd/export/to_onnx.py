"""Target `onnx`: one file for ONNX Runtime, fp32, dynamic batch, metadata inside.

`export` needs torch; `Runtime` does not, and is all that runs on the line. Unusual here: the file is loaded from bytes, which
are searched for tensors in other files first; and a provider that was asked for and not obtained is an
error, where ONNX Runtime falls back to the CPU without a word.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.export.card import KEY, ArtifactCard
from inspect_kd.export.engine_cache import engine_folder
from inspect_kd.export.options import DEFAULTS, RuntimeOptions
from inspect_kd.export.wire import card_text, refuse_external_data
from inspect_kd.types import BatchPrediction

if TYPE_CHECKING:
    from inspect_kd.export.graph import ArtifactGraph

SUFFIX = ".onnx"
LARGEST_BATCH = 64
PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}


def export(graph: ArtifactGraph, to: Path, *, card: ArtifactCard, opset: int) -> None:
    """Write the graph and its card as one file."""
    import torch
    from torch.export import Dim

    # A batch of two: with one the exporter takes the batch for a constant.
    example = torch.zeros(2, card.size, card.size, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        graph.eval().cpu(),
        (example,),
        dynamo=True,
        dynamic_shapes=({0: Dim("batch", min=1, max=LARGEST_BATCH)},),
        input_names=["images"],
        output_names=["heatmap", "score"],
        opset_version=opset,
        optimize=True,
        verbose=False,
    )
    if program is None:
        raise EnvironmentFault("torch.onnx.export returned no program: this version of torch cannot export dynamically")
    program.save(str(to), external_data=False)
    _ask_numbers_for_their_shape(to)
    reseal(to, card)
    written = written_opset(to)
    if written != opset:
        raise EnvironmentFault(f"asked the exporter for opset {opset}, got {written}")


def _ask_numbers_for_their_shape(path: Path) -> None:
    """The batch's size is read off the images; TensorRT tells no shape of bytes, so it is read off what they are cast to."""
    import onnx

    model = onnx.load(str(path))
    nodes = model.graph.node
    cast = next(i for i, node in enumerate(nodes) if node.op_type == "Cast" and node.input[0] == "images")
    first = nodes.pop(cast)
    nodes.insert(0, first)
    for node in nodes:
        if node.op_type == "Shape" and node.input[0] == "images":
            node.input[0] = first.output[0]
    onnx.save_model(model, str(path))


def written_opset(path: Path) -> int:
    """What the file says; the exporter raises versions that it does not like without a word."""
    import onnx

    model = onnx.load(str(path))
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def reseal(path: Path, card: ArtifactCard) -> None:
    """Write the card into the file, the only metadata that it keeps."""
    import onnx

    model = onnx.load(str(path))
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, card.dump()
    # Stack traces of the exporting machine have no place in a product.
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
    """One session on one artifact. Not shared between threads by accident: ONNX Runtime's own `run` is thread-safe."""

    def __init__(self, data: bytes, where: str, options: RuntimeOptions = DEFAULTS) -> None:
        self.where = where
        refuse_external_data(data, where)
        self.card = ArtifactCard.parse(card_text(data, where), where)
        self.size = self.card.size
        self.session = open_session(data, where, options)
        _check_signature(self.session, self.size, where)
        self.buffers = Buffers(self.session, self.size, options) if options.bind else None

    def predict_batch(self, images_NHW3: npt.NDArray[np.uint8]) -> BatchPrediction:
        if len(images_NHW3) == 0:
            raise BadInput("an empty batch: ONNX Runtime would answer it with no score and no error")
        images_NHW3 = np.ascontiguousarray(images_NHW3)
        try:
            if self.buffers is not None:
                heatmap, score = self.buffers.run(images_NHW3)
            else:
                heatmap, score = self.session.run(["heatmap", "score"], {"images": images_NHW3})
        except Exception as error:
            raise BadInput(f"{self.where}: ONNX Runtime could not run it ({short(error)})") from error
        return answers(score, heatmap, images_NHW3.shape, self.where)


def answers(score: Any, heatmap: Any, asked: tuple[int, ...], where: str) -> BatchPrediction:
    """What a runtime gave, if it is what an artifact has to give: a file's word about its shapes is only a word."""
    batch, side = asked[0], asked[1]
    fine = isinstance(score, np.ndarray) and isinstance(heatmap, np.ndarray)
    fine = fine and score.dtype == heatmap.dtype == np.float32
    if not fine or score.shape != (batch,) or heatmap.shape != (batch, 1, side, side):
        shapes = f"{getattr(score, 'shape', None)} and {getattr(heatmap, 'shape', None)}"
        raise BadInput(f"{where}: {batch} images went in, scores and heatmaps of shapes {shapes} came out")
    return BatchPrediction(score, heatmap[:, 0])


class Buffers:
    """Fixed places for inputs and outputs, made once for each size of batch, on the session's own device."""

    def __init__(self, session: Any, size: int, options: RuntimeOptions) -> None:
        self.session, self.size, self.options = session, size, options
        self.device = "cpu" if session.get_providers()[0] == "CPUExecutionProvider" else "cuda"
        self.made: dict[int, tuple[Any, Any, Any, list[Any]]] = {}
        # Two threads in one place would take each other's answer.
        self.lock = threading.Lock()

    def run(self, images_NHW3: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
        """Heatmap and score, copied out: the next image overwrites the places."""
        with self.lock:
            count = len(images_NHW3)
            if count not in self.made:
                self.made[count] = self._make(count)
            binding, how, given, answers = self.made[count]
            given.update_inplace(images_NHW3)
            self.session.run_with_iobinding(binding, how)
            return [np.array(answer.numpy()) for answer in answers]

    def _make(self, count: int) -> tuple[Any, Any, Any, list[Any]]:
        onnxruntime = import_onnxruntime()

        def place(shape: list[int], kind: type) -> Any:
            return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind, self.device, 0)

        given = place([count, self.size, self.size, 3], np.uint8)
        answers = [place([count, 1, self.size, self.size], np.float32), place([count], np.float32)]
        binding = self.session.io_binding()
        binding.bind_ortvalue_input("images", given)
        for name, answer in zip(("heatmap", "score"), answers, strict=True):
            binding.bind_ortvalue_output(name, answer)
        how = onnxruntime.RunOptions()
        if self.options.cuda_graph:
            # A recording is of one shape: each size of batch has its own.
            how.add_run_config_entry("gpu_graph_id", str(count))
        return binding, how, given, answers


def import_onnxruntime() -> Any:
    """The runtime, or the one line that says what to install."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EnvironmentFault(
            "ONNX Runtime is not installed. On a CPU: pip install 'inspect-kd[cpu]'; with an NVIDIA GPU: "
            "pip install 'inspect-kd[gpu]' (never both: the second overwrites the first)"
        ) from error
    return onnxruntime


def open_session(data: bytes, where: str, options: RuntimeOptions) -> Any:
    """A session whose providers are the ones that were asked for."""
    onnxruntime = import_onnxruntime()
    if options.device not in PROVIDERS:
        raise BadInput(f"no device '{options.device}'; there are: {', '.join(PROVIDERS)}")
    if options.device != "cpu" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    asked = PROVIDERS[options.device]
    usable = [provider for provider in asked if provider in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(
            data,
            sess_options=_session_options(onnxruntime, options),
            providers=usable,
            provider_options=[_provider_options(provider, options) for provider in usable],
        )
    except Exception as error:
        # ONNX Runtime raises a dozen classes without a common base of its own.
        raise BadInput(f"{where}: not an ONNX file that ONNX Runtime can run ({short(error)})") from error
    obtained = session.get_providers()
    if asked[0] not in obtained and not options.allow_cpu:
        raise EnvironmentFault(
            f"asked for {asked[0]}, obtained {', '.join(obtained)}. Install inspect-kd[gpu] and a matching CUDA, "
            "or pass --allow-cpu to run on the CPU on purpose; `inspect-kd doctor` shows what is missing"
        )
    return session


def _session_options(onnxruntime: Any, options: RuntimeOptions) -> Any:
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = options.threads
    chosen.log_severity_level = 4
    # Left to itself it takes bytes for its own format wherever they look like it, and that is checked by nobody.
    chosen.add_session_config_entry("session.load_model_format", "ONNX")
    # Threads that wait by spinning starve each other on a small box: p50 86 ms against 15.5 measured with two.
    chosen.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spinning)))
    chosen.add_session_config_entry("session.set_denormal_as_zero", "1")
    return chosen


def _provider_options(provider: str, options: RuntimeOptions) -> dict[str, str]:
    graph = str(int(options.cuda_graph))
    if provider == "CUDAExecutionProvider":
        return {"enable_cuda_graph": graph}
    if provider == "TensorrtExecutionProvider":
        # It names its files by graph, GPU and version itself; the folder is this user's alone.
        folder = str(engine_folder(options.cache))
        kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
        timed = {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
        return kept | timed | {"trt_cuda_graph_enable": graph}
    return {}


def _check_signature(session: Any, size: int, where: str) -> None:
    """A file whose shapes contradict its card lies about one of them."""
    inputs, outputs = session.get_inputs(), {output.name for output in session.get_outputs()}
    fine = (
        len(inputs) == 1
        and inputs[0].name == "images"
        and inputs[0].type == "tensor(uint8)"
        and list(inputs[0].shape[1:]) == [size, size, 3]
        and {"heatmap", "score"} <= outputs
    )
    if not fine:
        raise BadInput(f"{where}: its inputs and outputs are not those of an inspect-kd artifact of size {size}")


def short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
