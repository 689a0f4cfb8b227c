"""The entries of a comparison: our students by their recipes, anomalib's models, and a nearest-neighbour memory as reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inspect_kd import zoo
from inspect_kd.errors import UsageError

SHARED_ENCODER = "mobilenetv2_100"
"""The default student's encoder, used by every method that accepts it. Reverse Distillation's decoders accept ResNets only."""
SIZE = 256
"""Side of the images of all entries, in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One row of the table."""

    name: str
    maker: str
    """Module of this package that trains it: `ours`, `peers` or `memory`."""
    model: str = ""
    """Name of a recipe or of an anomalib class."""
    encoder: str | None = None
    """Backbone passed to the peer; None if it has its own."""
    options: dict[str, Any] = field(default_factory=dict)
    light: bool = False
    """A small variant of a peer; the latency goal is relative to the fastest of these."""


def _with_shared_encoder(name: str, model: str, **options: Any) -> Entry:
    return Entry(name=f"{name} · MobileNetV2", maker="peers", model=model, encoder=SHARED_ENCODER, options=options)


def _with_resnet18(name: str, model: str) -> Entry:
    return Entry(name=f"{name} · ResNet18", maker="peers", model=model, encoder="resnet18", light=True)


PEERS = {
    "patchcore": _with_shared_encoder("PatchCore", "Patchcore"),
    "padim": _with_shared_encoder("PaDiM", "Padim", n_features=100),
    "stfpm": _with_shared_encoder("STFPM", "Stfpm"),
    "fastflow": _with_shared_encoder("FastFlow", "Fastflow"),
    "supersimplenet": _with_shared_encoder("SuperSimpleNet", "Supersimplenet"),
    "padim_r18": _with_resnet18("PaDiM", "Padim"),
    "stfpm_r18": _with_resnet18("STFPM", "Stfpm"),
    "fastflow_r18": _with_resnet18("FastFlow", "Fastflow"),
    "reverse_distillation_r18": _with_resnet18("Reverse Distillation", "ReverseDistillation"),
    "efficient_ad": Entry(name="EfficientAD-S", maker="peers", model="EfficientAd"),
    "dinomaly": Entry(
        name="Dinomaly · ViT-S/14",
        maker="peers",
        model="Dinomaly",
        options={"encoder_name": "vit_small_patch14_reg4_dinov2"},
    ),
}
MEMORY = {"memory": Entry(name="memory · MobileNetV2", maker="memory", encoder=SHARED_ENCODER)}


def select_entries(students: list[str], against: list[str]) -> dict[str, Entry]:
    """Return the entries of these recipes and peers; the error for an unknown peer lists the known ones."""
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
