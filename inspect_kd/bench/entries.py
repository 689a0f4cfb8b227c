"""Who takes part: our students by their recipes, anomalib's models, a nearest-neighbour memory as the reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inspect_kd import zoo
from inspect_kd.errors import UsageError

SHARED = "mobilenetv2_100"
"""The encoder that every method gets that takes it: the default student's. Reverse Distillation's decoders know ResNets only."""
SIZE = 256
"""Side of the images that everybody gets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One row of the table."""

    name: str
    maker: str
    """Module of this package that makes it: `ours`, `peers` or `memory`."""
    model: str = ""
    """A recipe, or a class of anomalib."""
    encoder: str | None = None
    """Given to the peer as its backbone; None where it has its own."""
    options: dict[str, Any] = field(default_factory=dict)
    light: bool = False
    """A peer in its own light form, which the latency goal is measured against."""


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
    """The chosen ones; an unknown name is told which there are."""
    known = PEERS | MEMORY
    for name in against:
        if name not in known:
            raise UsageError(f"--against {name}: there is no such peer; there are: {', '.join(known)}")
    ours = {}
    for recipe in students:
        path = zoo.find("models", recipe)
        if path.stem in ours or path.stem in known:
            raise UsageError(
                f"--model {recipe}: two rows would be called '{path.stem}'; copy the recipe to another name"
            )
        ours[path.stem] = Entry(name=path.stem, maker="ours", model=recipe)
    return ours | {name: known[name] for name in against}
