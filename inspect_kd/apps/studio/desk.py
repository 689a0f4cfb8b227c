"""What lies before one person: parts, thresholds, what is chosen, filtered and marked.

A desk belongs to a browser tab (or to a client of the API). Its methods are everything that the Studio can do; Gradio
only carries clicks here and pictures back.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

import numpy as np

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.parts import Part, Places, inspect_part, write_layer
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.apps.studio.shelf import Shelf
from inspect_kd.apps.studio.what_if import WhatIf, held_out_scores, ordered, what_if
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.inspector import Inspector
from inspect_kd.types import Decision, Heatmap, Inspection, Thresholds

PAGE = 60
"""Cards in sight at once: a browser with five hundred pictures grows slow."""
FILTERS = ("all", *map(str, (Decision.NG, Decision.REINSPECT, Decision.OK)), "marked", "wrong")
ORDERS = ("worst", "best", "arrival")
MOST_REFUSED = 1000
"""Files that are no parts, remembered on one desk."""
HALF_STEP = 0.0005 + 1e-9
"""Of the threshold sliders."""
ROOM_LEFT = 2**20
"""Bytes that one more part may need on disk beside its original: pictures and heat."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that is no part, and why, in one line."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class SecondLook:
    """What the other artifact says of a part."""

    score: float
    heat: Path
    layer: Path

    def heatmap(self) -> Heatmap:
        stored: Heatmap = np.load(self.heat, allow_pickle=False)
        return stored


class Desk:
    def __init__(self, shelf: Shelf, settings: Settings, places: Places, free_bytes: Callable[[], int]) -> None:
        self.shelf, self.settings, self.places, self.free_bytes = shelf, settings, places, free_bytes
        self.lock = RLock()
        self.parts: dict[int, Part] = {}
        self.refused: list[Refusal] = []
        self.second: dict[int, SecondLook] = {}
        self.second_artifact: str | None = None
        self.filter, self.order, self.page = "all", "worst", 0
        self.selected: int | None = None
        self.looks = self.number = 0
        self.in_use, self.touched, self.closed = False, time.monotonic(), False
        self.notice = ""
        """What its owner must be told once."""
        self.choose(shelf.names[0], None)

    # Which artifact, which limits

    def choose(self, artifact: str, category: str | None) -> None:
        """Set artifact, category and limits at once; parts of another artifact are brought along by `change` alone."""
        inspector = self.shelf.take(artifact)
        if category is None and len(inspector.card.categories) == 1:
            category = inspector.card.categories[0]
        usual = inspector.card.calibration.limits_for(category).thresholds
        with self.lock:
            self.artifact, self.category, self.thresholds, self.usual = artifact, category, usual, usual
            self.forget_second()

    def change(self, artifact: str, category: str | None) -> Iterator[Part]:
        """Inspect the parts with another artifact, then replace parts, artifact and limits in one step.

        Stopped or failed before its end it changes nothing: no score stands beside another artifact's name and limits.
        """
        inspector, look = self.shelf.take(artifact), self.stop_change()
        inspector.card.calibration.limits_for(category)  # refuses an unknown category before any work
        new: dict[int, Part] = {}
        try:
            while not self._replace_parts(new, artifact, category, look):
                yield from self._inspect_again(new, inspector, look)
        finally:
            for part in new.values():
                if self.parts.get(part.number) is not part:
                    part.remove_pictures()

    def stop_change(self) -> int:
        """End a batch or a change of the artifact that still runs; the part in work is dropped. Returns the next one's number."""
        with self.lock:
            self.looks += 1
            return self.looks

    def _inspect_again(self, new: dict[int, Part], inspector: Inspector, look: int) -> Iterator[Part]:
        for old in self.all_parts():
            if old.number in new or look != self.looks:
                continue
            self.touch()
            self._check_disk(0)
            with self._folders_there():
                content = old.original.read_bytes()
                part = inspect_part(inspector, content, old.name, old.sha256, old.number, self.places, look=look)
            new[old.number] = part
            yield part

    def _replace_parts(self, new: dict[int, Part], artifact: str, category: str | None, look: int) -> bool:
        """Whether every part had been inspected, so that the change is made; a person's marks stay."""
        with self.lock:
            if look != self.looks:
                raise UsageError(texts.CHANGE_STOPPED)
            if artifact != self.artifact and not self.parts.keys() <= new.keys():
                return False
            self.choose(artifact, category)
            for number, part in new.items():
                if number in self.parts:
                    part.mark = self.parts[number].mark
                    self.parts[number].remove_pictures()
                    self.parts[number] = part
            return True

    @property
    def inspector(self) -> Inspector:
        return self.shelf.take(self.artifact)

    def move(self, reinspect: float, reject: float) -> None:
        """New limits for everything in sight; no model runs.

        The sliders' step is coarser than a calibration: within half a step of the artifact's own limit, it is that one.
        """
        with self.lock:
            self.thresholds = self.limits_at(reinspect, reject)

    def limits_at(self, reinspect: float, reject: float) -> Thresholds:
        """The thresholds that two sliders at these places stand for."""
        usual = self.usual
        if not all(0 <= limit <= usual.highest_choice for limit in (reinspect, reject)):  # NaN neither
            raise BadInput(texts.BEYOND_CHOICE.format(most=usual.highest_choice, reject=usual.reject))
        reinspect = usual.reinspect if abs(reinspect - usual.reinspect) <= HALF_STEP else reinspect
        reject = usual.reject if abs(reject - usual.reject) <= HALF_STEP else reject
        return ordered(reinspect, reject)

    def what_if(self) -> WhatIf:
        scores = [part.score for part in self.all_parts()]
        held_out = held_out_scores(self.inspector.card.calibration, self.category)
        return what_if(scores, held_out, self.thresholds, self.usual)

    def inspection(self, part: Part) -> Inspection:
        return part.inspection(self.inspector, self.thresholds)

    # Parts

    def add(self, content: bytes, name: str) -> Part | Refusal:
        """Inspect one file; what cannot be read is one line, and the batch goes on."""
        name = shown_name(name)
        try:
            self._check_room(len(content))
            digest, artifact, look = hashlib.sha256(content).hexdigest(), self.artifact, self.looks
            inspector = self.shelf.take(artifact)
            with self._folders_there():
                part = inspect_part(inspector, content, name, digest, self._next(), self.places, look=look)
                if not self._put(part, content, artifact, look):
                    return Refusal(name, texts.PART_STOPPED)
        except BadInput as error:
            return self.refuse(name, str(error).removeprefix(f"{name}: "))
        return part

    def refuse(self, name: str, reason: str) -> Refusal:
        """Remember what is no part; of endlessly many such files, the first."""
        refusal = Refusal(name, reason)
        with self.lock:
            if len(self.refused) < MOST_REFUSED:
                self.refused.append(refusal)
        return refusal

    def _put(self, part: Part, content: bytes, artifact: str, look: int) -> bool:
        """Keep an inspected part; False if its sender pressed Stop or cleared the desk meanwhile."""
        with self.lock:
            if artifact != self.artifact or look != self.looks:
                part.remove_pictures()
            if artifact != self.artifact:
                raise BadInput(texts.ARTIFACT_CHANGED)
            if look != self.looks:
                return False
            part.original.write_bytes(content)
            self.parts[part.number] = part
            if self.selected is None:
                self.selected = part.number
            return True

    def all_parts(self) -> list[Part]:
        with self.lock:
            return list(self.parts.values())

    def clear(self) -> None:
        with self.lock:
            self.stop_change()
            self.parts.clear()
            self.refused.clear()
            self.in_use = False
            self.selected, self.page, self.filter = None, 0, "all"
        self.forget_second()
        for folder in (self.places.kept, self.places.shown):
            for path in folder.iterdir():
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """End what runs and remove everything; a batch that goes on finds its desk closed."""
        self.closed = True
        self.parts.clear()
        self.second.clear()
        self.selected = None
        for folder in (self.places.kept, self.places.shown):
            shutil.rmtree(folder, ignore_errors=True)

    def bytes_kept(self) -> int:
        return sum(path.stat().st_size for path in self.places.kept.glob("*"))

    # What is in sight

    def counts(self) -> dict[str, int]:
        """Parts that each filter lets through."""
        parts = self.all_parts()
        return {name: sum(self._passes(part, name) for part in parts) for name in FILTERS}

    def in_sight(self) -> list[Part]:
        """Filtered and sorted, all pages."""
        parts = [part for part in self.all_parts() if self._passes(part, self.filter)]
        if self.order == "arrival":
            return parts
        # The part's number settles ties: two equal scores must not change places at every move.
        return sorted(parts, key=lambda part: (part.score if self.order == "best" else -part.score, part.number))

    def on_page(self) -> list[Part]:
        parts = self.in_sight()
        self.page = min(self.page, max(0, (len(parts) - 1) // PAGE))
        return parts[self.page * PAGE : (self.page + 1) * PAGE]

    def show(self, name: str) -> None:
        """Another filter; an unknown one shows all."""
        self.filter, self.page = (name if name in FILTERS else "all"), 0

    def sort(self, order: str) -> None:
        self.order, self.page = (order if order in ORDERS else "worst"), 0

    def turn(self, by: int) -> None:
        last = max(0, (len(self.in_sight()) - 1) // PAGE)
        self.page = min(last, max(0, self.page + by))

    def select(self, number: int) -> None:
        if number in self.parts:
            self.selected = number

    def step(self, by: int) -> None:
        """The next part in sight, or the one before; the page follows."""
        numbers = [part.number for part in self.in_sight()]
        if not numbers:
            return
        at = numbers.index(self.selected) + by if self.selected in numbers else 0
        at = min(len(numbers) - 1, max(0, at))
        self.selected, self.page = numbers[at], at // PAGE

    def chosen(self) -> Part | None:
        return self.parts.get(self.selected) if self.selected is not None else None

    # A second artifact

    def compare(self, artifact: str) -> Iterator[int]:
        """Every part through another artifact; yields how many are done."""
        other = self.shelf.take(artifact)
        with self.lock:
            self.forget_second()
            # Of this comparison alone: one that was stopped may still write its last answer into the former.
            self.second_artifact, second = artifact, self.second
        for done, part in enumerate(self.all_parts(), 1):
            self.touch()
            self._check_disk(0)
            # A new address each time: the browser keeps pictures by their address.
            stem = f"{part.number:05d}-{self._next()}-second"
            heat, layer = self.places.kept / f"{stem}.npy", self.places.shown / f"{stem}.png"
            with self._folders_there():
                answer = other(decoded(part, other))
                np.save(heat, answer.heatmap, allow_pickle=False)
                write_layer(layer, answer.heatmap)
            second[part.number] = SecondLook(answer.score, heat, layer)
            yield done

    def second_thresholds(self) -> Thresholds:
        """The other artifact's own limits: those of the category, where it knows it."""
        calibration = self.shelf.take(self.second_artifact).card.calibration
        return calibration.limits_for(self.category if self.category in calibration.limits else None).thresholds

    def forget_second(self) -> None:
        for look in list(self.second.values()):
            look.heat.unlink(missing_ok=True)
            look.layer.unlink(missing_ok=True)
        self.second, self.second_artifact = {}, None

    def touch(self) -> None:
        """Its owner is there, or a model still works for its owner."""
        self.touched = time.monotonic()

    def _next(self) -> int:
        with self.lock:
            self.number += 1
            self.in_use = True
            self.touch()
            return self.number

    @contextmanager
    def _folders_there(self) -> Iterator[None]:
        """Raise BadInput where the desk is closed, also when that happens meanwhile and its files are gone."""
        if self.closed:
            raise BadInput(texts.PART_STOPPED)
        try:
            yield
        except OSError:
            if self.closed:
                raise BadInput(texts.PART_STOPPED) from None
            raise

    def _check_room(self, size: int) -> None:
        if size > self.settings.max_upload_mb * 2**20:
            raise BadInput(texts.TOO_LARGE.format(mb=self.settings.max_upload_mb))
        if len(self.parts) >= self.settings.max_parts:
            raise BadInput(texts.DESK_FULL.format(most=self.settings.max_parts))
        self._check_disk(size)

    def _check_disk(self, size: int) -> None:
        if self.free_bytes() < size + ROOM_LEFT:
            raise BadInput(texts.DISK_FULL.format(mb=self.settings.max_kept_mb))

    def _passes(self, part: Part, name: str) -> bool:
        if name == "all":
            return True
        if name == "marked":
            return part.mark is not None
        if name == "wrong":
            return part.wrong(self.thresholds)
        return str(self.thresholds.decide(part.score)) == name


def decoded(part: Part, inspector: Inspector) -> np.ndarray:
    """The original's pixels, as this artifact reads them."""
    from inspect_kd.datasets.images import decode_image

    return decode_image(part.original.read_bytes(), part.name, bits=inspector.card.bits)


def shown_name(name: str) -> str:
    """A sender's file name for people: its last piece, printable, not endless."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(letter for letter in last if letter.isprintable())[:120] or texts.NAMELESS
