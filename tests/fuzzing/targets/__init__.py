"""Fuzzing targets. A target makes inputs (bytes) and feeds them to a function of the program.

An input is refused if the program raises one of its own errors, and accepted if it raises none. Anything else is a finding.
"""

from tests.fuzzing.targets.archives import Archives
from tests.fuzzing.targets.artifacts import (
    ARTIFACT_VARIABLE,
    Calibrations,
    Card,
    Onnx,
    Openvino,
    Quarantine,
    QuarantineOpenvino,
    Wire,
)
from tests.fuzzing.targets.images import Images
from tests.fuzzing.targets.layouts import Trees
from tests.fuzzing.targets.signatures import Signatures
from tests.fuzzing.targets.target import Target
from tests.fuzzing.targets.texts import Deployments, Manifests, Recipes

__all__ = ["ARTIFACT_VARIABLE", "TARGETS", "Target"]

TARGETS: dict[str, type[Target]] = {
    "wire": Wire,
    "card": Card,
    "calibration": Calibrations,
    "images": Images,
    "recipes": Recipes,
    "deployments": Deployments,
    "manifests": Manifests,
    "layouts": Trees,
    "signatures": Signatures,
    "archives": Archives,
    "onnx": Onnx,
    "openvino": Openvino,
    "quarantine": Quarantine,
    "quarantine_openvino": QuarantineOpenvino,
}
