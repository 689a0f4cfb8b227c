"""What is fed, and to which door of the program. An input is bytes; a target makes them and hands them in.

Whatever the program answers with one of its own errors is refused; what it takes without one is accepted. Anything else is a
finding.
"""

from tests.fuzzing.targets.archives import Archives
from tests.fuzzing.targets.artifacts import (
    ARTIFACT,
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

__all__ = ["ARTIFACT", "TARGETS", "Target"]

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
