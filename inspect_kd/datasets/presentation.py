"""From a camera's image to model input and back: align the part, cut it into square frames, map the heatmap back.

Training, calibration, evaluation and the line share this, so a score means the same everywhere. No torch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from inspect_kd.datasets.alignment import Alignment, NotFound, corners_in_image, cut_frame, cut_shrunk, heatmap_in_image
from inspect_kd.datasets.alignment.pose import MAX_SIDE, Matrix, resizing, size_of
from inspect_kd.datasets.images import read_mask, shrink_mask
from inspect_kd.datasets.view import Frame, View, predict_frames
from inspect_kd.datasets.zones import Weights, Zones, are_same
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.types import NOT_FOUND_SCORE, FrameOutline, Heatmap, ImageU8, Mask, Model

MAX_PRESENTATIONS = 1000
"""Most categories of a run or an artifact that have a presentation of their own."""
DETAIL = 2
"""An aligned part is cut at this multiple of the model's resolution where the image has more."""


@dataclass(frozen=True, slots=True, eq=False)
class IgnoredPlaces:
    """The places of one original image that are not inspected."""

    zones: Zones
    matrix: Matrix | None
    """Map from the image into the zones' frame; None where both are the same."""
    image_size: tuple[int, int]

    def cut(self, mask: Mask) -> Mask:
        """Remove the ignored places from a mask of the whole image, of any size."""
        return np.asarray(mask & ~self.zones.ignored_in_image(self.matrix, self.image_size, size_of(mask)), np.bool_)


class ImagePrediction(NamedTuple):
    """What a model predicts for one image."""

    score: float
    heatmap: Heatmap
    """Over the whole image, at about the model's resolution; 0 where nothing was inspected."""
    not_found: str | None = None
    """Why the part was not found; its score is then above every threshold."""
    category: str | None = None
    """The category that the image was recognised as; None where it was given, or makes no difference."""
    frame: FrameOutline | None = None
    """Outline of the inspected frame; None where the whole image was inspected."""
    ignored: IgnoredPlaces | None = None
    """The places that were not inspected; None without zones."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """An image ready to be cut into frames."""

    image: ImageU8
    """The original image."""
    view: View
    matrix: Matrix | None = None
    """Map from the image into the reference frame; None without alignment."""
    reference_size: tuple[int, int] | None = None
    """(width, height) of the reference frame; None without alignment."""
    frame: FrameOutline | None = None
    """Outline of the reference frame in the original image; None where it shows the whole image."""
    fault: NotFound | None = None
    """Why the part was not found; None for a part that was found, and without alignment."""
    quality: float = 0.0
    """How well the part agrees with the reference, as a multiple of the least quality accepted; 0 without alignment."""
    category: str | None = None
    """The category that the image was recognised as; None where it was given, or makes no difference."""
    zones: Zones | None = None
    """The zones that apply to the picture; their ignored places are painted over in it."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the original image."""
        return size_of(self.image)

    @property
    def picture_size(self) -> tuple[int, int]:
        """(width, height) of the picture."""
        return self.reference_size or self.image_size

    @cached_property
    def picture(self) -> ImageU8:
        """The reference frame with the part, at the image's own resolution; without alignment the image itself."""
        picture = self.image
        if self.matrix is not None:
            picture = cut_frame(self.image, self.matrix, self.picture_size)
        return picture if self.zones is None else self.zones.blank(picture)

    @property
    def ignored(self) -> IgnoredPlaces | None:
        """The places of the original image that are not inspected; None without zones."""
        return None if self.zones is None else IgnoredPlaces(self.zones, self.matrix, self.image_size)

    def scaled(self) -> ImageU8:
        """Return the picture at the frames' scale."""
        if self.matrix is None or self.zones is not None or self.view.tile is not None:
            return self.view.scaled(self.picture)
        detailed = DETAIL * self.view.size
        if min(self.picture_size) < detailed:
            return self.view.scaled(self.picture)
        # Cutting all pixels of a large frame, most of which are averaged away afterwards, takes three times as long.
        return self.view.scaled(cut_shrunk(self.image, self.matrix, self.picture_size, detailed))

    def scaled_weights(self) -> Weights | None:
        """Return the zones' weights at the frames' scale; None without zones."""
        return None if self.zones is None else self.zones.scaled(self.view)

    def frames(self, weights_side: int | None = None) -> Iterator[Frame]:
        """Yield all frames; with `weights_side` also their weights, all 1 without zones."""
        images = self.view.cut(self.scaled())
        if weights_side is None:
            yield from map(Frame, images)
        elif self.zones is None:
            ones = np.ones((weights_side, weights_side), np.float32)
            yield from (Frame(image, ones) for image in images)
        else:
            yield from map(Frame, images, self.zones.frame_weights(self.view, weights_side))

    def middle_frame(self, weights_side: int | None = None) -> Frame:
        """Return the middle one of the frames."""
        frames = list(self.frames(weights_side))
        return frames[len(frames) // 2]

    def read_mask(self, path: Path, *, size: tuple[int, int]) -> Mask:
        """Read a mask of the original image, moved into the picture, at (width, height); ignored places are cut out of it."""
        if self.matrix is None and self.zones is None:
            return read_mask(path, size=size)
        mask = read_mask(path, size=self.image_size)
        if self.matrix is not None:
            moved = cv2.warpAffine(mask.astype(np.uint8), self.matrix, self.picture_size, flags=cv2.INTER_NEAREST)
            mask = np.asarray(moved > 0)
        if self.zones is not None:
            mask = np.asarray(mask & ~self.zones.ignored)
        return shrink_mask(mask, size)

    def finish(self, score: float, heatmap: Heatmap) -> ImagePrediction:
        """Map the picture's prediction back to the original image."""
        if self.matrix is not None:
            heatmap = heatmap_in_image(heatmap, self.matrix, self.picture_size, self.image_size)
        if self.fault is not None:
            return ImagePrediction(NOT_FOUND_SCORE, heatmap, self.fault.reason, self.category, self.frame)
        return ImagePrediction(score, heatmap, None, self.category, self.frame, self.ignored)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Presentation:
    """How the images of one category become model input."""

    view: View
    alignment: Alignment | None = None
    reasons: tuple[str, ...] = ()
    """Why it was chosen, a line each; empty where the recipe sets it."""
    zones: Zones | None = None
    foreign_quality: float = 0.0
    """Highest quality that sound images of the categories without alignment reach with this reference. An image of unknown category
    whose quality is higher shows a part of this category, even one that is not found."""

    def prepare(self, image: ImageU8, category: str | None = None) -> Prepared:
        """Align the part in an image, if this category's parts are aligned, and paint over what its zones ignore."""
        if self.alignment is None:
            self.check_frame(image)
            return Prepared(image=image, view=self.view, category=category, zones=self.zones)
        found = self.alignment.locate(image)
        frame = self.alignment.frame
        # Where nothing is found, the whole image is predicted, so that people can see in the heatmap where it differs.
        matrix = resizing(size_of(image), frame) if found.pose is None else found.pose.matrix
        return Prepared(
            image=image,
            view=self.view,
            matrix=matrix,
            reference_size=frame,
            frame=None if found.pose is None else corners_in_image(matrix, frame),
            fault=found.fault,
            quality=0.0 if found.pose is None else found.pose.quality / max(self.alignment.min_quality, 1e-6),
            category=category,
            # Where the part was not found, the places of its zones are unknown.
            zones=self.zones if found.fault is None else None,
        )

    def check_frame(self, image: ImageU8, name: str = "an image") -> None:
        """Refuse an image of another size than the one on which zones were drawn; `name` is used in the error."""
        if self.zones is not None and size_of(image) != self.zones.frame:
            width, height = self.zones.frame
            raise BadInput(
                f"{name}: {image.shape[1]}x{image.shape[0]} pixels; its category's zones were drawn on {width}x{height}"
            )

    def to_json(self) -> dict[str, Any]:
        alignment = None if self.alignment is None else self.alignment.to_json()
        content = {
            "tile": self.view.tile,
            "overlap": self.view.overlap,
            "alignment": alignment,
            "reasons": list(self.reasons),
        }
        if self.foreign_quality > 0:
            content["foreign_quality"] = self.foreign_quality
        return content if self.zones is None else content | {"zones": self.zones.to_json()}

    @staticmethod
    def from_json(content: Mapping[str, Any], size: int) -> Presentation:
        """Read a presentation; every value is checked, since it may come from a hostile artifact."""
        required = {"tile", "overlap", "alignment", "reasons"}
        if not isinstance(content, Mapping) or content.keys() - {"zones", "foreign_quality"} != required:
            raise BadInput("a category's presentation is damaged")
        tile, overlap, alignment = content["tile"], content["overlap"], content["alignment"]
        if tile is not None and not (type(tile) is int and size <= 2 * tile <= 2**17):
            raise BadInput(f"impossible tile {tile!r}")
        if type(overlap) not in (int, float) or not 0 <= overlap <= 0.75:
            raise BadInput(f"impossible overlap {overlap!r}")
        reasons = content["reasons"]
        if not isinstance(reasons, list) or not all(isinstance(line, str) and line.isprintable() for line in reasons):
            raise BadInput("a category's presentation is damaged")
        foreign_quality = content.get("foreign_quality", 0.0)
        if type(foreign_quality) not in (int, float) or not 0 <= foreign_quality <= 1:
            raise BadInput(f"impossible foreign quality {foreign_quality!r:.40}")
        presentation = Presentation(
            foreign_quality=float(foreign_quality),
            view=View(size=size, tile=tile, overlap=overlap),
            alignment=None if alignment is None else Alignment.from_json(alignment),
            reasons=tuple(reasons),
            zones=Zones.from_json(content["zones"]) if "zones" in content else None,
        )
        zones = presentation.zones
        if zones is not None and presentation.alignment is not None and zones.frame != presentation.alignment.frame:
            raise BadInput("a category's zones have another frame than its alignment")
        return presentation


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Presentations:
    """The presentation of each category."""

    by_category: Mapping[str, Presentation] = field(default_factory=dict)
    default: Presentation | None = None
    """For categories without a presentation of their own."""

    @staticmethod
    def plain(view: View) -> Presentations:
        """Present all categories alike, without alignment."""
        return Presentations(default=Presentation(view=view))

    @property
    def _all(self) -> list[Presentation]:
        return [*self.by_category.values(), *([self.default] if self.default else [])]

    @property
    def size(self) -> int:
        """Side of the model's input."""
        return self._all[0].view.size

    @property
    def has_tiles(self) -> bool:
        return any(each.view.tile is not None for each in self._all)

    @property
    def has_zones(self) -> bool:
        return any(each.zones is not None for each in self._all)

    @property
    def common_view(self) -> View | None:
        """The view that all categories share if none is aligned and none has zones; else None."""
        views = {each.view for each in self._all}
        is_plain = not any(each.alignment or each.zones for each in self._all)
        return views.pop() if len(views) == 1 and is_plain else None

    def of(self, category: str) -> Presentation:
        """Return a category's presentation, which every category of a run has."""
        presentation = self.by_category.get(category) or self.default
        if presentation is None:
            raise UsageError(f"no category '{category}'; there are: {', '.join(sorted(self.by_category))}")
        return presentation

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return each category's alignment and tile, with the reasons, without pictures."""
        return {
            name: {
                "align": each.alignment.method if each.alignment else "none",
                "tile": each.view.tile,
                "reasons": list(each.reasons),
                **({"zones": each.zones.describe()} if each.zones else {}),
            }
            for name, each in self.by_category.items()
        }

    def resized(self, size: int) -> Presentations:
        """Return the same presentations for a model whose input has another side."""

        def resize(presentation: Presentation) -> Presentation:
            return replace(presentation, view=replace(presentation.view, size=size))

        return Presentations(
            by_category={name: resize(each) for name, each in self.by_category.items()},
            default=resize(self.default) if self.default else None,
        )

    def prepare(self, image: ImageU8, category: str | None) -> Prepared:
        """Prepare an image of a category; without one, or with an unknown one, the category whose reference fits best is taken."""
        presentation = self.by_category.get(category) if category is not None else None
        if presentation is not None:
            return presentation.prepare(image)
        if self.common_view is not None:
            return self._all[0].prepare(image)
        return self._recognise(image)

    def _recognise(self, image: ImageU8) -> Prepared:
        """Prepare an image of an unknown category: as the aligned category that fits best, else like the categories without alignment."""
        aligned = {name: each.prepare(image, name) for name, each in self.by_category.items() if each.alignment}
        # A part that is not found is still of its category where it is more like the reference than other categories' parts are.
        found = [each for each in aligned.values() if each.fault is None] or [
            each for name, each in aligned.items() if each.quality > self.by_category[name].foreign_quality
        ]
        others = [each for each in self._all if each.alignment is None]
        if found or not others:
            return max(found or aligned.values(), key=lambda each: each.quality)
        if len({each.view for each in others}) > 1:
            raise UsageError(
                f"the categories {', '.join(sorted(self.by_category))} are cut into tiles of different sizes: name the image's category"
            )
        if not all(are_same(each.zones, others[0].zones) for each in others):
            raise UsageError(
                f"the categories {', '.join(sorted(self.by_category))} have different zones: name the image's category"
            )
        return others[0].prepare(image)

    def check_size(self, image: ImageU8, name: str = "an image", category: str | None = None) -> None:
        """Refuse an image that would need too much memory; `name` is used in the error."""
        own = self.by_category.get(category) if category is not None else None
        for presentation in [own] if own else self._all:
            if presentation.alignment is None:
                presentation.view.check_size(image, name)
                if len(self._all) == 1 or own:
                    presentation.check_frame(image, name)
            elif max(image.shape[:2]) > MAX_SIDE:
                raise BadInput(
                    f"{name}: {image.shape[1]}x{image.shape[0]} pixels; a side of an image with a part to align has at most "
                    f"{MAX_SIDE}: crop the image"
                )

    def to_json(self) -> dict[str, Any]:
        return {name: each.to_json() for name, each in self.by_category.items()}

    @staticmethod
    def from_json(content: Mapping[str, Any], size: int) -> Presentations:
        if not isinstance(content, Mapping) or not 1 <= len(content) <= MAX_PRESENTATIONS:
            raise BadInput(f"the presentations are not those of 1 to {MAX_PRESENTATIONS} categories")
        return Presentations(by_category={name: Presentation.from_json(each, size) for name, each in content.items()})


def predict_images(
    model: Model, presentations: Presentations, images: Iterable[tuple[ImageU8, str | None]]
) -> Iterator[ImagePrediction]:
    """Predict images of the given categories, each read only when needed; frames of several images share batches."""
    waiting: deque[Prepared] = deque()
    side = model.weights_side if presentations.has_zones else None
    if presentations.has_zones and side is None:
        raise UsageError("this model takes no zones; a student does")

    def frames() -> Iterator[Frame]:
        for image, category in images:
            prepared = presentations.prepare(image, category)
            waiting.append(prepared)
            yield from prepared.frames(side)

    predictions = predict_frames(model, frames())
    for first in predictions:
        prepared = waiting.popleft()
        count = prepared.view.count(*prepared.picture_size)
        own = islice(chain([first], predictions), count)
        yield prepared.finish(*prepared.view.join(own, prepared.picture_size))


def predict_image(
    model: Model, presentations: Presentations, image: ImageU8, category: str | None = None
) -> ImagePrediction:
    """Predict one image."""
    return next(predict_images(model, presentations, [(image, category)]))
