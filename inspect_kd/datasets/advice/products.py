"""Advise on several products in one category: pictures that fall into clearly separate kinds by colour, outline or structure."""

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
"""Kinds are one product in different light if the likeness across kinds is at least this share of the likeness within a kind."""
OWN_COLOUR = 0.3
"""If the backgrounds' colours differ by less than this share of the parts' difference, the parts themselves have different colours.

Otherwise the difference may come from the light, which falls on both."""
SAME_NAME = 0.95
"""Share of comparisons in which pictures whose names begin alike must be closer in colour than others."""
MOST_NAMED = 50
"""Largest number of kinds that names may distinguish."""
ROWS, MOST_COUNTS = 4, 6
"""Largest number of kinds that the contact sheet shows, and whose sizes the text lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Products:
    """Kinds of pictures in one category."""

    members: tuple[tuple[int, ...], ...]
    """Indices of each kind's pictures, the largest kind first."""
    criterion: str
    """What distinguishes the kinds, such as `colour`."""


def find_products(pictures: Sequence[SoundPicture], spread: PoseSpread | None) -> Products | None:
    """Find clearly separate kinds of pictures; None if there is only one."""
    likeness = correlate(pictures)
    colours = np.stack([_colour(picture) for picture in pictures])
    labels, criterion = _find_by_names(pictures, colours), "name and colour"
    if labels is None:
        labels, criterion = find_clusters(_distances(colours), COLOUR_FLOOR), "colour"
    if labels is not None and (
        not _show_one_structure(likeness, labels)
        or (spread is not None and _is_colour_of_parts(pictures, colours, labels))
    ):
        return _make_products(labels, criterion)
    if spread is not None:
        outlines = [i for i, picture in enumerate(pictures) if picture.silhouette is not None]
        features = np.stack([_outline(pictures[i]) for i in outlines])
        labels = find_clusters(_distances(features), OUTLINE_FLOOR)
        if labels is not None:
            everywhere = np.full(len(pictures), -1, np.intp)
            everywhere[outlines] = labels
            return _make_products(everywhere, "outline")
    labels = find_clusters(1 - likeness, STRUCTURE_FLOOR)
    if labels is not None:
        return _make_products(labels, "structure")
    return None


def _find_by_names(pictures: Sequence[SoundPicture], colours: npt.NDArray[np.float64]) -> Labels | None:
    """Label pictures by the beginnings of their names; None unless their colours agree with the names."""
    stems = [picture.sample.image.stem for picture in pictures]
    smallest = max(SMALLEST, SMALLEST_SHARE * len(stems))
    distances = _distances(colours)
    for pattern in prefix_patterns(stems):
        labels = pattern.labels(stems)
        sizes = np.bincount(labels)
        if 2 <= len(sizes) <= MOST_NAMED and sizes.min() >= smallest and _colours_agree(distances, labels):
            return labels
    return None


def _colours_agree(distances: npt.NDArray[np.float64], labels: Labels) -> bool:
    """Whether pictures with the same label are closer in colour to each other than to others."""
    first, second = np.triu_indices(len(labels), 1)
    values, same = distances[first, second], labels[first] == labels[second]
    others = np.sort(values[~same])
    farther = 1 - np.searchsorted(others, values[same], side="right") / len(others)
    return float(farther.mean()) >= SAME_NAME


def _colour(picture: SoundPicture, *, of_background: bool = False) -> npt.NDArray[np.float64]:
    """Return mean and standard deviation of a picture's or its part's Lab colour, without lightness, which depends on the light."""
    lab = cv2.cvtColor(picture.small, cv2.COLOR_RGB2LAB)
    mask = picture.silhouette.mask if picture.silhouette is not None else None
    if mask is not None and of_background:
        mask = np.asarray(255 - mask, np.uint8)
    return np.concatenate([moment.ravel()[1:] for moment in cv2.meanStdDev(lab, mask=mask)])


def _outline(picture: SoundPicture) -> npt.NDArray[np.float64]:
    """Return size, elongation and convexity of the part's outline as logarithms; they do not depend on its pose."""
    silhouette = picture.silhouette
    if silhouette is None:
        raise ValueError("a picture without a silhouette has no outline")
    contours, _ = cv2.findContours(silhouette.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(contours))
    convexity = silhouette.area / max(cv2.contourArea(hull), 1.0)
    side = max(picture.small.shape[:2])
    return np.array([0.5 * np.log(silhouette.area / side**2), np.log(silhouette.axis_ratio), np.log(convexity)])


def _distances(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.norm(features[:, None] - features[None, :], axis=2), np.float64)


def _show_one_structure(likeness: Likeness, labels: Labels) -> bool:
    """Whether the kinds show the same structure at the same place, so that perhaps only the light differs."""
    inside = labels >= 0
    pairs = inside[:, None] & inside[None, :] & ~np.eye(len(labels), dtype=bool)
    same = labels[:, None] == labels[None, :]
    within, across = float(np.median(likeness[pairs & same])), float(np.median(likeness[pairs & ~same]))
    return within >= STRUCTURED and across >= ALIKE_ACROSS * within


def _is_colour_of_parts(pictures: Sequence[SoundPicture], colours: npt.NDArray[np.float64], labels: Labels) -> bool:
    """Whether the colour of the parts themselves differs, not the light: then the backgrounds' colours differ far less."""
    backgrounds = np.stack([_colour(picture, of_background=True) for picture in pictures])
    part_colours, background_colours = (
        np.array([np.median(values[labels == label, :2], axis=0) for label in range(labels.max() + 1)])
        for values in (colours, backgrounds)
    )
    return float(_distances(background_colours).max()) < OWN_COLOUR * float(_distances(part_colours).max())


def _make_products(labels: Labels, criterion: str) -> Products:
    members = [tuple(int(i) for i in np.flatnonzero(labels == label)) for label in range(labels.max() + 1)]
    return Products(members=tuple(sorted(members, key=len, reverse=True)), criterion=criterion)


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
            text=f"the sound pictures fall into {len(products.members)} separate kinds by {products.criterion} ({counts}{more} pictures)",
            remedy="where these are several products, give each a folder of its own, so that each gets its own thresholds",
            changes=(),
            picture=draw_contact_sheet(rows),
        )
    ]
