"""Make an artifact by a deployment recipe (`export/<name>.yaml`): export, prove, and only then give it its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from inspect_kd import config, registry, zoo
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.graph import ArtifactGraph, TorchModel
from inspect_kd.export.verify import Images, Parity, compare, hold_to


class Accept(config.Strict):
    """Limits against torch; what is missed leaves no artifact."""

    score: float = Field(ge=0)
    heatmap: float = Field(ge=0)
    auroc: float = Field(ge=0)
    flips: int = Field(ge=0)


class Deployment(config.Strict):
    name: str
    about: str = ""
    target: str
    """File `inspect_kd/export/to_<target>.py`."""
    opset: int = Field(20, ge=20)
    batches: tuple[int, ...] = Field((1, 2, 8), min_length=1)
    accept: Accept


def load_deployment(name: str) -> Deployment:
    path = zoo.find("export", name)
    return config.fill(Deployment, config.read_yaml(path), where=str(path))


def make_artifact(
    graph: ArtifactGraph,
    to: Path,
    *,
    card: ArtifactCard,
    deployment: Deployment,
    real: Iterable[tuple[Images, Sequence[bool]]],
) -> Parity:
    """Write `to`, or raise and leave nothing. `real` gives batches of images at the artifact's size, and their truth."""
    target: Any = registry.load("export", f"to_{deployment.target}")
    partial = to.with_name(f".{to.stem}.partial{target.SUFFIX}")
    try:
        target.export(graph, partial, card=card, opset=deployment.opset)
        parity = compare(
            TorchModel(graph, card.size),
            target.Runtime(partial.read_bytes(), to.name),
            real,
            batches=deployment.batches,
            thresholds=card.calibration.limits_for(None).thresholds,
            guard=deployment.accept.score,
        )
        hold_to(parity, deployment.accept.model_dump(), to.name)
        target.reseal(partial, dataclasses.replace(card, parity=parity.to_json()))
        # The file that is about to get its name is opened once more: the card was changed after the proof.
        target.Runtime(partial.read_bytes(), to.name).look(np.zeros((1, card.size, card.size, 3), np.uint8))
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)
    return parity
