"""Settings that all reconstruction students share, and a check of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inspect_kd.errors import UsageError
from inspect_kd.models.encoders import STRIDES, Encoder
from inspect_kd.models.layers.features import Group, Scaling

MAX_HEAD_WIDTH = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareConfig:
    strides: Group
    """Feature levels that are joined for the comparison."""
    prototypes: int = 4096
    """Number of prototypes, shared by all categories."""
    window: int = 3
    """Side, in cells, of the window over which features are summed before the comparison; odd."""
    length_power: float = 0.0
    """0: cosine distance, the angle alone; 1: multiplied by the features' length, close to a Euclidean distance."""
    weight: float = 1.0
    """Weight in the heatmap, where a rebuilt group has weight 1."""
    score_weight: float | None = None
    """Weight in the score; None: the same. Coarse levels are best at detecting a defect, fine levels at locating it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RebuildConfig:
    encoder: str = "mobilenetv2_100"
    """`embedded`, or any timm model with features at `strides`."""
    strides: tuple[int, ...] = STRIDES
    """Strides of the encoder's feature levels, fine to coarse."""
    normalise: Scaling = "spread"
    """`spread` divides each channel by its standard deviation, `full` also subtracts its mean, `none` does neither."""
    rebuild: tuple[Group, ...] = ((4, 8),)
    """Groups of strides; each group is rebuilt together, at the grid of its coarsest level."""
    target_window: int = 1
    """Side, in cells, of the window over which the rebuilt target is averaged; odd. Above 1 the target is less exact."""
    compare: tuple[CompareConfig, ...] = (
        CompareConfig(strides=(4, 8), prototypes=512),
        CompareConfig(strides=(16,), weight=2.0, score_weight=6.0, length_power=0.5),
    )
    """Groups of strides that are compared with prototypes; empty: none."""
    noise: Literal["spread", "norm"] = "spread"
    """Noise in proportion to the bottleneck's standard deviation over the batch, or to each token's norm as published."""
    noise_strength: float = 0.3
    """Factor of the noise."""
    hard_power: float = 1.0
    """Weight of a position in the loss: (distance / mean distance) ** hard_power, at most 3."""
    sigma: float = 4.0
    """Gaussian smoothing of the heatmap, in pixels of the input."""
    score_share: float = 0.01
    """The score is the mean over this share of positions, the hottest ones."""
    head_width: int = 0
    """Channels of the defect heads, which learn from labels and teachers (stages S1 to S3); 0: no heads."""


def check_config(config: RebuildConfig, encoder: Encoder) -> None:
    """Raise a `UsageError` where settings contradict each other or the encoder's strides."""
    available = set(encoder.strides)
    groups = {"rebuild": config.rebuild, "compare": tuple(compare.strides for compare in config.compare)}
    for name, group in ((name, group) for name, members in groups.items() for group in members):
        if not group or not set(group) <= available:
            raise UsageError(f"student.{name}: {list(group)} must be some of the encoder's strides {sorted(available)}")
    if config.target_window % 2 == 0:
        raise UsageError(
            f"student.target_window: {config.target_window} is even; use an odd window, which has a centre"
        )
    if not 0 <= config.head_width <= MAX_HEAD_WIDTH:
        raise UsageError(f"student.head_width: {config.head_width} is not between 0 and {MAX_HEAD_WIDTH}")
    if not config.rebuild:
        raise UsageError("student.rebuild: name at least one group of strides")
    if config.compare and config.normalise == "full":
        raise UsageError("student.normalise: prototypes compare directions, which `full` destroys; use `spread`")
    for compare in config.compare:
        if compare.window % 2 == 0 or compare.prototypes < 1:
            raise UsageError(
                "student.compare: each group needs an odd window, which has a centre, and at least one prototype"
            )
