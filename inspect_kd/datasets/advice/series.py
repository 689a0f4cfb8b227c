"""Advise on near-duplicates and series: several pictures of one physical part, or of one shot sequence.

Such pictures must not be split between training and thresholds: the thresholds would then be too low for new parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.advice.advice import Advice
from inspect_kd.datasets.advice.contact_sheet import draw_contact_sheet
from inspect_kd.datasets.advice.likeness import correlate_individually
from inspect_kd.datasets.advice.names import MIN_GROUPS, Pattern, find_numbered_series, group_patterns
from inspect_kd.datasets.advice.parts_lie import PoseSpread
from inspect_kd.datasets.advice.sound_picture import SoundPicture

NEAR_DUPLICATE = 0.7
"""Correlation of two pictures, without what all have in common, from which they count as pictures of the same part."""
MIN_SHARE, MIN_PICTURES = 0.1, 4
"""Least share and least number of pictures with a near-duplicate for which groups are advised."""
KEPT_TOGETHER = 0.75
"""Least share of near-duplicate pairs that a pattern of names must keep together."""
SHOWN_PAIRS = 3
NO_PATTERN = "name the part of each picture in a CSV with the columns image, label and group, and train on that CSV"


def advise_on_series(category: str, pictures: Sequence[SoundPicture], spread: PoseSpread | None) -> list[Advice]:
    """Advise where pictures of one part may be split between training and thresholds."""
    pairs = find_near_duplicates(pictures, spread)
    involved = sorted({i for pair in pairs for i in pair})
    if len(involved) >= max(MIN_PICTURES, MIN_SHARE * len(pictures)):
        return [_advise_by_likeness(category, pictures, pairs, involved)]
    ungrouped = [picture for picture in pictures if picture.sample.group is None]
    if len(ungrouped) < len(pictures):
        return []  # groups are given already, by a CSV, a manifest or an option
    stems = [picture.sample.image.stem for picture in pictures]
    pattern = find_numbered_series(stems)
    if pattern is None:
        return []
    labels = pattern.labels(stems)
    largest = np.argsort(-np.bincount(labels))[:2]
    return [
        Advice(
            topic="series",
            category=category,
            number=int(labels.max()) + 1,
            measure="groups of pictures by their names",
            text=f"the names of {len(pictures)} sound pictures tell {labels.max() + 1} series, such as "
            f"{_examples([stems[i] for i in np.flatnonzero(labels == largest[0])])}",
            remedy="where a series shows one part, keep it together",
            changes=_group_option(pattern),
            picture=draw_contact_sheet([pictures[i] for label in largest for i in np.flatnonzero(labels == label)[:6]]),
        )
    ]


def find_near_duplicates(pictures: Sequence[SoundPicture], spread: PoseSpread | None) -> list[tuple[int, int]]:
    """Return pairs of pictures that show the same part, most alike first, but not pairs that a group already keeps together."""
    if len(pictures) < MIN_PICTURES:
        return []
    likeness = correlate_individually(pictures, spread)
    first, second = np.nonzero(np.triu(likeness >= NEAR_DUPLICATE, 1))
    order = np.argsort(-likeness[first, second], kind="stable")
    pairs = [(int(first[i]), int(second[i])) for i in order]
    groups = [picture.sample.group for picture in pictures]
    return [(a, b) for a, b in pairs if groups[a] is None or groups[a] != groups[b]]


def _advise_by_likeness(
    category: str, pictures: Sequence[SoundPicture], pairs: Sequence[tuple[int, int]], involved: Sequence[int]
) -> Advice:
    pattern = _pattern_of_pairs([picture.sample.image.stem for picture in pictures], pairs)
    return Advice(
        topic="series",
        category=category,
        number=len(involved),
        measure="sound pictures with a near-duplicate",
        text=f"{len(involved)} of {len(pictures)} sound pictures have a near-duplicate that seems to show the same part, such as "
        f"{_examples([pictures[i].sample.image.stem for i in pairs[0]])}",
        remedy="keep the pictures of one part together" if pattern else NO_PATTERN,
        changes=_group_option(pattern) if pattern else None,
        picture=draw_contact_sheet([pictures[i] for pair in _without_overlap(pairs)[:SHOWN_PAIRS] for i in pair]),
        files=tuple(pictures[i].sample.image for i in involved),
    )


def _without_overlap(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Leave out pairs with a picture that an earlier pair contains."""
    seen: set[int] = set()
    kept = []
    for pair in pairs:
        if not seen & {*pair}:
            kept.append(pair)
            seen |= {*pair}
    return kept


def _pattern_of_pairs(stems: Sequence[str], pairs: Sequence[tuple[int, int]]) -> Pattern | None:
    """Return the pattern that keeps near-duplicates together in the smallest groups; None if no pattern keeps most of them together."""
    first, second = np.array(pairs).T
    best, most_groups = None, MIN_GROUPS - 1
    for pattern in group_patterns(stems):
        labels: npt.NDArray[np.intp] = pattern.labels(stems)
        groups = int(labels.max()) + 1
        if np.mean(labels[first] == labels[second]) >= KEPT_TOGETHER and most_groups < groups < len(stems):
            best, most_groups = pattern, groups
    return best


def _group_option(pattern: Pattern) -> tuple[str, ...]:
    return ("--set", f"data.group={pattern.expression}")


def _examples(stems: Sequence[str]) -> str:
    return " and ".join(stems[:2])
