"""Target `tensorrt`: the same ONNX file as target `onnx` writes; the machine on the line builds an engine from it, once.

An engine fits one GPU, driver and version, and is native code: the ONNX file is what is shipped, signed and verified. Unusual here: a
new engine is compared with ONNX Runtime on the CPU, on the machine that will run it, before it is cached. The file's types
set the precision (fp16, or int8 between Q and DQ), as TensorRT 11 requires; version 10 needs the flag STRONGLY_TYPED for that.

The authors had no GPU and never ran this target. Tests cover only what runs without one (`tensorrt_rules`, `engine_cache`); run
`make gpu-check` on a machine with a GPU.
"""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inspect_kd import atomic_write
from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.export import to_onnx
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.engine_cache import EngineKey, engine_folder, load_or_build
from inspect_kd.export.options import DEFAULTS, RuntimeOptions
from inspect_kd.export.verify import artificial_images
from inspect_kd.export.wire import card_text, refuse_external_data
from inspect_kd.types import BatchPrediction, Progress

if TYPE_CHECKING:
    from inspect_kd.export.graph import ArtifactGraph

SUFFIX = ".tensorrt.onnx"
ENGINE_BATCH = 8
"""Batch size for which an engine is built; larger batches are split."""
WORKSPACE_BYTES = 1 << 30
MAX_DIFFERENCE = 0.02
"""Largest difference of a new engine's score from ONNX Runtime's, on the calibrated scale."""
TIMING_FILE = "timing.cache"
"""TensorRT's timings of tactics, shared by all engines."""

# An export is verified with ONNX Runtime, without a GPU; each engine is compared with ONNX Runtime where it is built.
VerificationRuntime = to_onnx.Runtime


def export(graph: ArtifactGraph, to: Path, *, card: ArtifactCard, opset: int) -> None:
    to_onnx.export(graph, to, card=card, opset=opset)


def check(file: Path) -> None:
    """Refuse a file with operators that TensorRT does not support."""
    from inspect_kd.export.tensorrt_rules import refuse_unsupported

    refuse_unsupported(file)


def write_card(path: Path, card: ArtifactCard) -> None:
    to_onnx.write_card(path, card)


class Runtime:
    """One engine and one stream; concurrent calls wait for each other."""

    def __init__(self, data: bytes, where: str, options: RuntimeOptions = DEFAULTS) -> None:
        refuse_external_data(data, where)
        self.where = where
        self.card = ArtifactCard.parse(card_text(data, where), where)
        self.size = self.card.size
        plan = load_or_build_plan(
            data,
            self.card,
            options,
            lambda timing_file: _build_verified_plan(data, self.card, where, timing_file, options.progress),
        )
        self.engine = _Engine(plan, self.size, has_zones=self.card.image_presentations.has_zones)
        self.weights_side = self.engine.weights_side
        self.lock = threading.Lock()

    def predict_batch(
        self, images_NHW3: npt.NDArray[np.uint8], weights_N1hw: npt.NDArray[np.float32] | None = None
    ) -> BatchPrediction:
        if len(images_NHW3) == 0:
            raise BadInput("an empty batch")
        inputs = to_onnx.graph_inputs(images_NHW3, weights_N1hw, self.weights_side, self.where)
        with self.lock:
            outputs = [
                self.engine.run({name: array[start : start + ENGINE_BATCH] for name, array in inputs.items()})
                for start in range(0, len(images_NHW3), ENGINE_BATCH)
            ]
        return BatchPrediction(
            np.concatenate([score for _, score in outputs]), np.concatenate([heat[:, 0] for heat, _ in outputs])
        )


def load_or_build_plan(
    data: bytes,
    card: ArtifactCard,
    options: RuntimeOptions,
    build: Callable[[Path], bytes],
    key: EngineKey | None = None,
) -> bytes:
    """Load the engine from the cache, or build it; `build` gets the path of the timing file."""
    folder = engine_folder(options.cache)
    return load_or_build(folder, key or _engine_key(data, card), lambda: build(folder / TIMING_FILE))


def _engine_key(data: bytes, card: ArtifactCard) -> EngineKey:
    gpu, driver = _query_gpu()
    digest = hashlib.sha256(data).hexdigest()
    version = str(_import_tensorrt().__version__)
    return EngineKey(artifact=digest, size=card.size, batch=ENGINE_BATCH, gpu=gpu, driver=driver, tensorrt=version)


def _query_gpu() -> tuple[str, str]:
    """Return the first GPU's name with its compute capability, and its driver version."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EnvironmentFault(
            "TensorRT needs an NVIDIA GPU, and nvidia-smi finds none; on a CPU use the .onnx or .openvino.onnx artifact"
        ) from error
    name, capability, driver = (word.strip() for word in output.splitlines()[0].split(","))
    return f"{name} {capability}", driver


def _build_verified_plan(data: bytes, card: ArtifactCard, where: str, timing_file: Path, progress: Progress) -> bytes:
    """Build an engine and compare its scores with ONNX Runtime's on the CPU."""
    plan = build_plan(data, card.size, timing_file, progress)
    engine = _Engine(plan, card.size, has_zones=card.image_presentations.has_zones)
    reference = to_onnx.Runtime(data, where)
    images = np.stack(artificial_images(card.size))
    _, scores = engine.run(to_onnx.graph_inputs(images, None, engine.weights_side, where))
    difference = float(np.abs(scores - reference.predict_batch(images).scores_N).max())
    if not difference <= MAX_DIFFERENCE:
        raise BadInput(
            f"{where}: the scores of the engine that TensorRT built differ from ONNX Runtime's by {difference:.3g} of the threshold "
            f"(at most {MAX_DIFFERENCE}); it was discarded. Use --device cuda, or the fp32 artifact"
        )
    return plan


def build_plan(data: bytes, size: int, timing_file: Path, progress: Progress) -> bytes:
    """Build an engine, which takes minutes on a small GPU; the tactics' timings are saved for the next one."""
    trt = _import_tensorrt()
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    # Version 11 has no such flag: all its networks are strongly typed.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(data):
        faults = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BadInput(f"TensorRT {trt.__version__} cannot read the graph: {to_onnx.one_line(Exception(faults))}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    profile = builder.create_optimization_profile()
    # Smallest, optimal and largest shape.
    shapes = [(count, size, size, 3) for count in (1, 1, ENGINE_BATCH)]
    profile.set_shape("images", *shapes)
    for number in range(1, network.num_inputs):  # the zones' weights
        side = network.get_input(number).shape[-1]
        profile.set_shape(network.get_input(number).name, *((count, 1, side, side) for count in (1, 1, ENGINE_BATCH)))
    config.add_optimization_profile(profile)
    config.progress_monitor = _build_monitor(trt, progress)
    config.set_timing_cache(
        config.create_timing_cache(timing_file.read_bytes() if timing_file.is_file() else b""), False
    )
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EnvironmentFault(f"TensorRT {trt.__version__} built no engine; the GPU's memory may be full")
    atomic_write.write_bytes(timing_file, bytes(config.get_timing_cache().serialize()), mode=0o600)
    return bytes(plan)


def _build_monitor(trt: Any, progress: Progress) -> Any:
    """Build a monitor that reports only the outermost phase: TensorRT reports nested phases, from several threads."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.outermost: str | None = None
            self.lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self.lock:
                if parent_phase is None:
                    self.outermost = phase_name
                    progress.phase(f"engine: {phase_name}", num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self.lock:
                if phase_name == self.outermost:
                    progress.advance()
            return True

        def phase_finish(self, phase_name: str) -> None: ...

    return Monitor()


class _Engine:
    """A deserialised plan with its context, and GPU buffers for the largest batch."""

    def __init__(self, plan: bytes, size: int, *, has_zones: bool) -> None:
        from polygraphy.cuda import DeviceArray, Stream
        from polygraphy.datatype import DataType

        trt = _import_tensorrt()
        self.size = size
        self.runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise BadInput("TensorRT cannot load the cached engine; delete it, and it will be built again")
        self.context = self.engine.create_execution_context()
        self.stream = Stream()
        self.buffers = {
            "images": DeviceArray((ENGINE_BATCH, size, size, 3), DataType.UINT8),
            "heatmap": DeviceArray((ENGINE_BATCH, 1, size, size), DataType.FLOAT32),
            "score": DeviceArray((ENGINE_BATCH,), DataType.FLOAT32),
        }
        self.weights_side: int | None = None
        if has_zones:
            self.weights_side = int(self.engine.get_tensor_shape("weights")[-1])
            shape = (ENGINE_BATCH, 1, self.weights_side, self.weights_side)
            self.buffers["weights"] = DeviceArray(shape, DataType.FLOAT32)
        for name, buffer in self.buffers.items():
            self.context.set_tensor_address(name, buffer.ptr)

    def run(self, inputs: to_onnx.GraphInputs) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return heatmap and score of up to ENGINE_BATCH images."""
        count = len(inputs["images"])
        # A smaller shape allocates nothing, so the addresses set in the context stay valid.
        for name, array in inputs.items():
            self.buffers[name].resize(array.shape).copy_from(array, self.stream)
            self.context.set_input_shape(name, array.shape)
        if not self.context.execute_async_v3(self.stream.ptr):
            raise EnvironmentFault("TensorRT could not start its engine; `inspect-kd doctor` shows the GPU's state")
        heatmap = np.empty((count, 1, self.size, self.size), np.float32)
        score = np.empty((count,), np.float32)
        self.buffers["heatmap"].resize(heatmap.shape).copy_to(heatmap, self.stream)
        self.buffers["score"].resize(score.shape).copy_to(score, self.stream)
        self.stream.synchronize()
        return heatmap, score


def _import_tensorrt() -> Any:
    try:
        import polygraphy.cuda  # noqa: F401, wraps the CUDA calls
        import tensorrt
    except ImportError as error:
        raise EnvironmentFault(
            "TensorRT is not installed: pip install 'inspect-kd[tensorrt]' on a machine with an NVIDIA GPU; "
            "a Jetson has TensorRT from JetPack and needs polygraphy only"
        ) from error
    return tensorrt
