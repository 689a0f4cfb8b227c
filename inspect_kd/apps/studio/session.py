"""A session: the parts of one browser tab, or of one client of the API, with its artifact and thresholds.

Everything that the Inspect and Compare tabs do is a method of it; Gradio only passes events in and HTML out.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import RLock

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.artifact.library import ArtifactLibrary
from inspect_kd.apps.studio.compare.comparison import ArtifactComparison
from inspect_kd.apps.studio.inspect.gallery_state import GalleryState
from inspect_kd.apps.studio.inspect.parts import Part, SessionFolders, inspect_part
from inspect_kd.apps.studio.inspect.what_if import WhatIf, compute_what_if, held_out_scores, ordered_thresholds
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.calibrate import POOLED
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.inspector import Inspector
from inspect_kd.types import Inspection, Thresholds

MAX_REFUSED = 1000
"""Limit of the refused files that one session lists."""
HALF_STEP = 0.0005 + 1e-9
"""Half a step of the threshold sliders, with a margin for rounding."""
RESERVE_BYTES = 2**20
"""Disk space that must be free for the pictures of one more part."""


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """A file that could not be inspected, with the reason in one line."""

    name: str
    reason: str


class Session:
    """Parts, artifact and thresholds of one browser tab or client."""

    def __init__(
        self, library: ArtifactLibrary, settings: Settings, folders: SessionFolders, free_bytes: Callable[[], int]
    ) -> None:
        self.library, self.settings, self.folders, self.free_bytes = library, settings, folders, free_bytes
        self.lock = RLock()
        self.parts: dict[int, Part] = {}
        self.refused_files: list[RefusedFile] = []
        self.refused_count = 0
        """All refused files, also those that are not listed."""
        self.gallery = GalleryState(self)
        self.comparison = ArtifactComparison(self)
        self.last_number = 0
        self.generation = 0
        """Each cancellation increases it; parts of an earlier generation are dropped."""
        self.is_used = False
        """Whether it has received a part since it was opened or cleared."""
        self.is_closed, self.last_active = False, time.monotonic()
        self.notice = ""
        """A message that the client must receive once."""
        self.set_artifact(library.names[0], None)

    # Artifact and thresholds

    def set_artifact(self, artifact: str, category: str | None) -> None:
        """Set artifact, category and thresholds; unlike `change_artifact`, without inspecting the parts again."""
        inspector = self.library.open(artifact)
        if category is None and len(inspector.card.categories) == 1:
            category = inspector.card.categories[0]
        default = inspector.card.calibration.for_category(category).thresholds
        with self.lock:
            self.artifact, self.category = artifact, category
            self.thresholds, self.default_thresholds = default, default
            self.comparison.clear()

    def change_artifact(self, artifact: str, category: str | None) -> Iterator[Part]:
        """Inspect the parts with another artifact, then replace parts, artifact and thresholds in one step.

        A change that is cancelled or fails has no effect, so that scores and thresholds always belong to the same artifact.
        """
        if category == POOLED:
            raise BadInput(texts.NO_CATEGORY.format(category=category))
        inspector, generation = self.library.open(artifact), self.cancel()
        inspector.card.calibration.for_category(category)  # refuses an unknown category before any work
        new_parts: dict[int, Part] = {}
        try:
            while not self._replace_parts(new_parts, artifact, category, generation):
                yield from self._inspect_again(new_parts, inspector, category, generation)
        finally:
            for part in new_parts.values():
                if self.parts.get(part.number) is not part:
                    part.remove_outputs()

    def must_inspect_again(self, artifact: str, category: str | None) -> bool:
        """Whether parts must be inspected again: by another artifact, or as another category that is presented differently."""
        if artifact != self.artifact:
            return True
        return category != self.category and self.library.open(artifact).presentations.common_view is None

    def cancel(self) -> int:
        """Cancel a running batch or change of the artifact; the part that is being inspected is dropped. Return the new generation."""
        with self.lock:
            self.generation += 1
            return self.generation

    def _inspect_again(
        self, new_parts: dict[int, Part], inspector: Inspector, category: str | None, generation: int
    ) -> Iterator[Part]:
        for former in self.all_parts():
            if former.number in new_parts or generation != self.generation:
                continue
            self.touch()
            self.check_disk(0)
            with self.refuse_if_stopped(generation):
                content = former.original.read_bytes()
                part = inspect_part(
                    inspector,
                    content,
                    former.name,
                    former.sha256,
                    former.number,
                    self.folders,
                    generation=generation,
                    category=category,
                    check_disk=self.check_disk,
                )
            new_parts[former.number] = part
            yield part

    def _replace_parts(self, new_parts: dict[int, Part], artifact: str, category: str | None, generation: int) -> bool:
        """Replace artifact and parts, but keep the marks. Return False if parts have not been inspected yet."""
        with self.lock:
            if generation != self.generation:
                raise UsageError(texts.CHANGE_STOPPED)
            if self.must_inspect_again(artifact, category) and not self.parts.keys() <= new_parts.keys():
                return False
            self.set_artifact(artifact, category)
            for number, part in new_parts.items():
                if number in self.parts:
                    part.mark, part.stored_mark = self.parts[number].mark, self.parts[number].stored_mark
                    self.parts[number].remove_outputs()
                    self.parts[number] = part
            return True

    @property
    def inspector(self) -> Inspector:
        return self.library.open(self.artifact)

    def set_thresholds(self, reinspect: float, reject: float) -> None:
        """Decide all parts by new thresholds, from stored scores; no model runs."""
        with self.lock:
            self.thresholds = self.thresholds_at(reinspect, reject)

    def thresholds_at(self, reinspect: float, reject: float) -> Thresholds:
        """The thresholds for two slider positions.

        A position within half a step of the artifact's own threshold means that threshold, which is finer than the step.
        """
        default = self.default_thresholds
        # Also refuses NaN, and what a client sends instead of a number.
        if not all(
            isinstance(threshold, int | float) and 0 <= threshold <= default.highest_allowed
            for threshold in (reinspect, reject)
        ):
            raise BadInput(texts.THRESHOLD_OUT_OF_RANGE.format(maximum=default.highest_allowed, reject=default.reject))
        reinspect = default.reinspect if abs(reinspect - default.reinspect) <= HALF_STEP else reinspect
        reject = default.reject if abs(reject - default.reject) <= HALF_STEP else reject
        return ordered_thresholds(reinspect, reject)

    def what_if(self) -> WhatIf:
        """Count the decisions under the present thresholds."""
        scores = [part.score for part in self.all_parts()]
        held_out = held_out_scores(self.inspector.card.calibration, self.category)
        return compute_what_if(scores, held_out, self.thresholds, self.default_thresholds)

    def inspection(self, part: Part) -> Inspection:
        """Decision and regions of a part under the present thresholds."""
        return part.inspection(self.inspector, self.thresholds)

    # Parts

    def add(self, content: bytes, name: str) -> Part | RefusedFile:
        """Inspect one file. A file that cannot be read or stored is refused, so that a batch continues."""
        name = display_name(name)
        number = 0
        try:
            self._check_room(len(content))
            with self.lock:
                artifact, category, generation = self.artifact, self.category, self.generation
            digest = hashlib.sha256(content).hexdigest()
            inspector = self.library.open(artifact)
            number = self.next_number()
            with self.refuse_if_stopped(generation):
                part = inspect_part(
                    inspector,
                    content,
                    name,
                    digest,
                    number,
                    self.folders,
                    generation=generation,
                    category=category,
                    check_disk=lambda size: self.check_disk(size + len(content)),  # the original is stored last
                )
                if not self._keep(part, content, artifact, generation):
                    return RefusedFile(name, texts.PART_STOPPED)
        except (BadInput, UsageError) as error:
            return self.refuse(name, str(error).removeprefix(f"{name}: "))
        except OSError as error:  # for example, the temporary folder's disk is full
            self._remove_outputs(number)
            return self.refuse(name, texts.PART_NOT_STORED.format(reason=error.strerror or type(error).__name__))
        return part

    def refuse(self, name: str, reason: str) -> RefusedFile:
        """Count a refused file, and list it if there are fewer than `MAX_REFUSED`."""
        file = RefusedFile(name, reason)
        with self.lock:
            self.refused_count += 1
            if len(self.refused_files) < MAX_REFUSED:
                self.refused_files.append(file)
        return file

    def _keep(self, part: Part, content: bytes, artifact: str, generation: int) -> bool:
        """Keep an inspected part. Return False if the batch was stopped or the parts were cleared meanwhile."""
        with self.lock:
            if artifact != self.artifact or generation != self.generation:
                part.remove_outputs()
            if artifact != self.artifact:
                raise BadInput(texts.ARTIFACT_CHANGED)
            if generation != self.generation:
                return False
            part.original.write_bytes(content)
            self.parts[part.number] = part
            if self.gallery.selected is None:
                self.gallery.selected = part.number
            return True

    def all_parts(self) -> list[Part]:
        """The parts in the order of their arrival."""
        with self.lock:
            return list(self.parts.values())

    def clear(self) -> None:
        """Remove all parts and their files."""
        with self.lock:
            self.cancel()
            self.parts.clear()
            self.refused_files.clear()
            self.refused_count = 0
            self.is_used = False
            self.gallery.reset()
            self.comparison.clear()
        for folder in self.folders:
            for path in folder.iterdir():
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove all parts and the session's folders; a running batch then stops at `refuse_if_stopped`."""
        self.is_closed = True
        with self.lock:
            self.cancel()
            self.parts.clear()
            self.comparison.predictions.clear()
            self.gallery.selected = None
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def touch(self) -> None:
        """Record that the session is active: a request arrived, or a batch is running."""
        self.last_active = time.monotonic()

    def next_number(self) -> int:
        """A number that no part or picture of this session has had."""
        with self.lock:
            self.last_number += 1
            self.is_used = True
            self.touch()
            return self.last_number

    def _check_room(self, size: int) -> None:
        if size > self.settings.max_upload_mb * 2**20:
            raise BadInput(texts.TOO_LARGE.format(mb=self.settings.max_upload_mb))
        if len(self.parts) >= self.settings.max_parts:
            raise BadInput(texts.SESSION_FULL.format(maximum=self.settings.max_parts))
        self.check_disk(size)

    def _remove_outputs(self, number: int) -> None:
        """Remove what a failed inspection has written."""
        with suppress(OSError):
            for folder in self.folders:
                for path in (*folder.glob(f"{number:05d}"), *folder.glob(f"{number:05d}-*")):
                    path.unlink(missing_ok=True)

    @contextmanager
    def refuse_if_stopped(self, generation: int) -> Iterator[None]:
        """Raise BadInput if the session is closed before the block, or if files disappear inside it because parts were cleared."""
        if self.is_closed:
            raise BadInput(texts.PART_STOPPED)
        try:
            yield
        except OSError:
            if self.is_closed or generation != self.generation:
                raise BadInput(texts.PART_STOPPED) from None
            raise

    def check_disk(self, size: int) -> None:
        """Raise BadInput unless the disk limit leaves room for a part of this size."""
        if self.free_bytes() < size + RESERVE_BYTES:
            raise BadInput(texts.DISK_FULL.format(mb=self.settings.max_kept_mb))


def display_name(name: str) -> str:
    """An uploaded file's name for people: without folders, printable, at most 120 characters."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(letter for letter in last if letter.isprintable())[:120] or texts.DEFAULT_NAME
