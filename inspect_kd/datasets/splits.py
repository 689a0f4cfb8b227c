"""Split samples into train, calibration, validation and test: by seed and group, stable when files are added.

Unusual here: parts are ordered by a keyed hash of their names, not by their position in a list. So a new file moves others
between splits only as far as the shares require, and the folder's path has no influence.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inspect_kd.errors import BadInput
from inspect_kd.types import Sample, Split

MIN_IMAGES = 5
"""Sound parts that a category needs: three to train, one to calibrate, one to validate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holdout:
    """Shares of the sound parts that are held out of training."""

    seed: int = 0
    calibration: float = 0.2
    validation: float = 0.1
    test: float = 0.2
    """Used only for categories whose layout has no sound test parts."""


def assign_splits(samples: Sequence[Sample], holdout: Holdout) -> list[Sample]:
    """Assign a split to every sample. All defects, and the samples that the layout has in the test, go to the test."""
    by_category: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_category[sample.category].append(sample)
    return [
        sample
        for category in sorted(by_category)
        for sample in _split_category(category, by_category[category], holdout)
    ]


def _split_category(name: str, samples: list[Sample], holdout: Holdout) -> list[Sample]:
    test = [replace(s, split=Split.TEST) for s in samples if s.split is Split.TEST or s.defective]
    sound = [s for s in samples if s.split is not Split.TEST and not s.defective]
    has_sound_test = any(not s.defective for s in test)
    # All images of a part go to the test if one of them does.
    test_groups = {s.group for s in test if s.group is not None}
    test += [replace(s, split=Split.TEST) for s in sound if s.group in test_groups]
    sound = [s for s in sound if s.group not in test_groups]
    if len(sound) < MIN_IMAGES:
        raise BadInput(
            f"category '{name}' has {len(sound)} sound parts for training; at least {MIN_IMAGES} are needed "
            "(three to train on, one for the thresholds, one for early stopping)"
        )
    groups = _order_groups(sound, holdout.seed)
    shares = [(Split.CALIBRATION, holdout.calibration), (Split.VALIDATION, holdout.validation)]
    if not has_sound_test and len(sound) > MIN_IMAGES and holdout.test > 0:
        shares.append((Split.TEST, holdout.test))
    if len(groups) <= len(shares):
        raise BadInput(
            f"category '{name}': {len(groups)} groups of parts are too few for held-out splits; check data.group, or add parts"
        )
    held_out: list[Sample] = []
    for split, share in shares:
        wanted = max(1, round(share * len(sound)))
        taken = 0
        while taken < wanted and len(groups) > 1:
            group = groups.pop(0)
            held_out += [replace(s, split=split) for s in group]
            taken += len(group)
    return [replace(s, split=Split.TRAIN) for group in groups for s in group] + held_out + test


def _order_groups(samples: list[Sample], seed: int) -> list[list[Sample]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.group or f"{sample.image.parent.name}/{sample.image.name}"].append(sample)
    # surrogatepass: file names need not be valid UTF-8.
    keys = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode(errors="surrogatepass")).digest())
    return [sorted(groups[key], key=lambda s: s.image.name) for key in keys]
