"""Honest splits: train, calibration, validation, test; by seed, by group, and stable when files are added.

Unusual here: a part's place follows from a keyed hash of its own name, not from its position in a list. A new file moves no
other across the borders more than the shares demand, and the folder's path does not matter.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inspect_kd.errors import BadInput
from inspect_kd.types import Sample, Split

FEWEST = 5
"""Sound parts a category needs: three to train on, one to calibrate, one to validate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holdout:
    """Shares of the sound parts that the optimiser never sees."""

    seed: int = 0
    calibration: float = 0.2
    validation: float = 0.1
    test: float = 0.2
    """Of the sound parts of a category without a test of its own."""


def assign(samples: Sequence[Sample], holdout: Holdout) -> list[Sample]:
    """Give every sample its split. What a layout says is test stays test; defects are only ever tested on."""
    by_category: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_category[sample.category].append(sample)
    return [
        sample for category in sorted(by_category) for sample in _category(category, by_category[category], holdout)
    ]


def _category(name: str, samples: list[Sample], holdout: Holdout) -> list[Sample]:
    test = [replace(s, split=Split.TEST) for s in samples if s.split is Split.TEST or s.defective]
    sound = [s for s in samples if s.split is not Split.TEST and not s.defective]
    has_sound_test = any(not s.defective for s in test)
    # A part that is tested on in one photograph is learnt from in none.
    tested = {s.group for s in test if s.group is not None}
    test += [replace(s, split=Split.TEST) for s in sound if s.group in tested]
    sound = [s for s in sound if s.group not in tested]
    if len(sound) < FEWEST:
        raise BadInput(
            f"category '{name}' has {len(sound)} sound parts to learn from; at least {FEWEST} are needed "
            "(three to train on, one for the thresholds, one for the early stop)"
        )
    groups = _ordered_groups(sound, holdout.seed)
    shares = [(Split.CALIBRATION, holdout.calibration), (Split.VALIDATION, holdout.validation)]
    if not has_sound_test and len(sound) > FEWEST and holdout.test > 0:
        shares.append((Split.TEST, holdout.test))
    if len(groups) <= len(shares):
        raise BadInput(
            f"category '{name}': {len(groups)} groups of parts are too few to hold any out; check data.group"
        )
    held: list[Sample] = []
    for split, share in shares:
        wanted = max(1, round(share * len(sound)))
        taken = 0
        while taken < wanted and len(groups) > 1:
            group = groups.pop(0)
            held += [replace(s, split=split) for s in group]
            taken += len(group)
    return [replace(s, split=Split.TRAIN) for group in groups for s in group] + held + test


def _ordered_groups(samples: list[Sample], seed: int) -> list[list[Sample]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.group or f"{sample.image.parent.name}/{sample.image.name}"].append(sample)
    # Passed on: a name that is no text, as other systems leave them, has its place too.
    keys = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode(errors="surrogatepass")).digest())
    return [sorted(groups[key], key=lambda s: s.image.name) for key in keys]
