"""Several products under one category's name: pictures that fall into clearly separate kinds, by colour, by outline or by structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.datasets.advice.advice import Advice
from inspect_kd.datasets.advice.clusters import SMALLEST, SMALLEST_SHARE, Labels, find_clusters
from inspect_kd.datasets.advice.contact_sheet import COLUMNS, draw_contact_sheet
from inspect_kd.datasets.advice.likeness import Likeness, correlate
from inspect_kd.datasets.advice.names import prefix_patterns
from inspect_kd.datasets.advice.parts_lie import PoseSpread
from inspect_kd.datasets.advice.sound_picture import SoundPicture

COLOUR_FLOOR = 1.0
"""Difference of average colours in Lab units that no one sees."""
OUTLINE_FLOOR = 0.03
"""Difference in size or elongation of outlines, as a logarithm, that parts of one kind have."""
STRUCTURE_FLOOR = 0.1
"""Unlikeness that pictures of one kind have."""
STRUCTURED = 0.5
"""Likeness from which pictures of one kind show the same structure at the same place."""
ALIKE_ACROSS = 0.7
"""Kinds whose structures agree by this share of the agreement within a kind are one product in different light."""
OWN_COLOUR = 0.3
"""Difference of the backgrounds' colours over that of the parts' up to which the parts, not the light, have two colours."""
SAME_NAME = 0.95
"""Share of comparisons in which pictures whose names begin alike must be closer in colour than others."""
MOST_NAMED = 50
"""Most kinds that names may tell."""
ROWS, MOST_COUNTS = 4, 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Products:
    """Kinds of pictures in one category."""

    members: tuple[tuple[int, ...], ...]
    """Indices of each kind's pictures, the largest kind first."""
    seen_by: str
    """What tells them apart."""


def find_products(pictures: Sequence[SoundPicture], spread: PoseSpread | None) -> Products | None:
    """Find clearly separate kinds of pictures; None if there is only one."""
    likeness = correlate(pictures)
    colours = np.stack([_colour(picture) for picture in pictures])
    labels, seen_by = _find_by_names(pictures, colours), "name and colour"
    if labels is None:
        labels, seen_by = find_clusters(_distances(colours), COLOUR_FLOOR), "colour"
    if labels is not None and (
        not _show_one_structure(likeness, labels) or (spread is not None and _is_parts_own(pictures, colours, labels))
    ):
        return _products(labels, seen_by)
    if spread is not None:
        outlines = [i for i, picture in enumerate(pictures) if picture.silhouette is not None]
        features = np.stack([_outline(pictures[i]) for i in outlines])
        labels = find_clusters(_distances(features), OUTLINE_FLOOR)
        if labels is not None:
            everywhere = np.full(len(pictures), -1, np.intp)
            everywhere[outlines] = labels
            return _products(everywhere, "outline")
    labels = find_clusters(1 - likeness, STRUCTURE_FLOOR)
    if labels is not None:
        return _products(labels, "structure")
    return None


def _find_by_names(pictures: Sequence[SoundPicture], colours: npt.NDArray[np.float64]) -> Labels | None:
    """Kinds that the beginnings of the names tell, where the colours agree with them."""
    stems = [picture.sample.image.stem for picture in pictures]
    smallest = max(SMALLEST, SMALLEST_SHARE * len(stems))
    distances = _distances(colours)
    for pattern in prefix_patterns(stems):
        labels = pattern.labels(stems)
        sizes = np.bincount(labels)
        if 2 <= len(sizes) <= MOST_NAMED and sizes.min() >= smallest and _agree(distances, labels):
            return labels
    return None


def _agree(distances: npt.NDArray[np.float64], labels: Labels) -> bool:
    """Whether pictures with one label are closer to each other than to others."""
    first, second = np.triu_indices(len(labels), 1)
    values, same = distances[first, second], labels[first] == labels[second]
    others = np.sort(values[~same])
    farther = 1 - np.searchsorted(others, values[same], side="right") / len(others)
    return float(farther.mean()) >= SAME_NAME


def _colour(picture: SoundPicture, *, of_background: bool = False) -> npt.NDArray[np.float64]:
    """Average colour in Lab without its lightness, which follows the light, and how much it varies; of the part where it is found."""
    lab = cv2.cvtColor(picture.small, cv2.COLOR_RGB2LAB)
    mask = picture.silhouette.mask if picture.silhouette is not None else None
    if mask is not None and of_background:
        mask = np.asarray(255 - mask, np.uint8)
    return np.concatenate([moment.ravel()[1:] for moment in cv2.meanStdDev(lab, mask=mask)])


def _outline(picture: SoundPicture) -> npt.NDArray[np.float64]:
    """Size and elongation of the part's outline, which do not depend on how it lies."""
    silhouette = picture.silhouette
    if silhouette is None:
        raise ValueError("a picture without a silhouette has no outline")
    contours, _ = cv2.findContours(silhouette.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(contours))
    filled = silhouette.area / max(cv2.contourArea(hull), 1.0)
    side = max(picture.small.shape[:2])
    return np.array([0.5 * np.log(silhouette.area / side**2), np.log(silhouette.axis_ratio), np.log(filled)])


def _distances(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.norm(features[:, None] - features[None, :], axis=2), np.float64)


def _show_one_structure(likeness: Likeness, labels: Labels) -> bool:
    """Whether the kinds show the same structure at the same place, so that perhaps only the light differs."""
    inside = labels >= 0
    both = inside[:, None] & inside[None, :] & ~np.eye(len(labels), dtype=bool)
    same = labels[:, None] == labels[None, :]
    within, across = float(np.median(likeness[both & same])), float(np.median(likeness[both & ~same]))
    return within >= STRUCTURED and across >= ALIKE_ACROSS * within


def _is_parts_own(pictures: Sequence[SoundPicture], colours: npt.NDArray[np.float64], labels: Labels) -> bool:
    """Whether the parts' colours differ far more than those of the background, which the same light falls on."""
    backgrounds = np.stack([_colour(picture, of_background=True) for picture in pictures])
    own, others = (
        np.array([np.median(values[labels == label, :2], axis=0) for label in range(labels.max() + 1)])
        for values in (colours, backgrounds)
    )
    return float(_distances(others).max()) < OWN_COLOUR * float(_distances(own).max())


def _products(labels: Labels, seen_by: str) -> Products:
    members = [tuple(int(i) for i in np.flatnonzero(labels == label)) for label in range(labels.max() + 1)]
    return Products(members=tuple(sorted(members, key=len, reverse=True)), seen_by=seen_by)


def advise_on_products(category: str, pictures: Sequence[SoundPicture], products: Products | None) -> list[Advice]:
    """Advise where a category holds several products."""
    if products is None:
        return []
    counts = ", ".join(str(len(members)) for members in products.members[:MOST_COUNTS])
    more = ", …" if len(products.members) > MOST_COUNTS else ""
    # A row for each kind, as many as a small sheet shows.
    rows = [pictures[i] for members in products.members[:ROWS] for i in members[:COLUMNS]]
    return [
        Advice(
            topic="products",
            category=category,
            number=len(products.members),
            measure="kinds of pictures in one category",
            text=f"the sound pictures fall into {len(products.members)} separate kinds by {products.seen_by} ({counts}{more} pictures)",
            remedy="where these are several products, give each a folder of its own, so that each gets its own thresholds",
            changes=(),
            picture=draw_contact_sheet(rows),
        )
    ]
