"""The entries of a comparison: our students by their recipes, anomalib's models, and a nearest-neighbour memory as reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inspect_kd import zoo
from inspect_kd.errors import UsageError

SHARED = "mobilenetv2_100"
"""The default student's encoder, used by every method that accepts it. Reverse Distillation's decoders accept ResNets only."""
SIZE = 256
"""Side of the images, the same for all entries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One row of the table."""

    name: str
    maker: str
    """Module of this package that trains it: `ours`, `peers` or `memory`."""
    model: str = ""
    """A recipe, or a class of anomalib."""
    encoder: str | None = None
    """Backbone passed to the peer; None if it has its own."""
    options: dict[str, Any] = field(default_factory=dict)
    light: bool = False
    """A small variant of a peer, with which the latency aim is compared."""


def _on_shared(name: str, model: str, **options: Any) -> Entry:
    return Entry(name=f"{name} · MobileNetV2", maker="peers", model=model, encoder=SHARED, options=options)


def _on_resnet(name: str, model: str) -> Entry:
    return Entry(name=f"{name} · ResNet18", maker="peers", model=model, encoder="resnet18", light=True)


PEERS = {
    "patchcore": _on_shared("PatchCore", "Patchcore"),
    "padim": _on_shared("PaDiM", "Padim", n_features=100),
    "stfpm": _on_shared("STFPM", "Stfpm"),
    "fastflow": _on_shared("FastFlow", "Fastflow"),
    "supersimplenet": _on_shared("SuperSimpleNet", "Supersimplenet"),
    "padim_r18": _on_resnet("PaDiM", "Padim"),
    "stfpm_r18": _on_resnet("STFPM", "Stfpm"),
    "fastflow_r18": _on_resnet("FastFlow", "Fastflow"),
    "reverse_distillation_r18": _on_resnet("Reverse Distillation", "ReverseDistillation"),
    "efficient_ad": Entry(name="EfficientAD-S", maker="peers", model="EfficientAd"),
    "dinomaly": Entry(
        name="Dinomaly · ViT-S/14",
        maker="peers",
        model="Dinomaly",
        options={"encoder_name": "vit_small_patch14_reg4_dinov2"},
    ),
}
MEMORY = {"memory": Entry(name="memory · MobileNetV2", maker="memory", encoder=SHARED)}


def entries(students: list[str], against: list[str]) -> dict[str, Entry]:
    """Resolve recipes and names of peers; the error for an unknown name lists the known ones."""
    known = PEERS | MEMORY
    for name in against:
        if name not in known:
            raise UsageError(f"--against {name}: no such peer; known are: {', '.join(known)}")
    ours = {}
    for recipe in students:
        path = zoo.find("models", recipe)
        if path.stem in ours or path.stem in known:
            raise UsageError(
                f"--model {recipe}: two rows would be called '{path.stem}'; copy the recipe to another name"
            )
        ours[path.stem] = Entry(name=path.stem, maker="ours", model=recipe)
    return ours | {name: known[name] for name in against}
