"""One desk a browser tab, so many and no more; whoever leaves takes everything along.

A newcomer never takes the parts of somebody who is at work: only a desk without parts, or one that has been silent for long,
makes room, and its owner is told so.

Files lie in two folders: what the browser may fetch below Gradio's own, originals and heatmaps where no address leads.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.desk import Desk
from inspect_kd.apps.studio.parts import Places
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.apps.studio.shelf import Shelf
from inspect_kd.apps.studio.temporary_folder import TemporaryFolder
from inspect_kd.apps.studio.uploads import Uploads, bytes_of
from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.types import Thresholds

SILENT_S = 1800.0
"""After this time a desk with parts may make room for a newcomer."""
MOST_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class ClosedDesk:
    """What a session finds again, and must be told, if it comes back."""

    artifact: str
    category: str | None
    thresholds: Thresholds
    lost_parts: int


class Desks:
    def __init__(self, shelf: Shelf, settings: Settings, shown: Path, uploads: Uploads | None = None) -> None:
        self.shelf, self.settings, self.shown, self.uploads = shelf, settings, shown, uploads
        self._folder = TemporaryFolder("inspect-kd-studio-")
        self.kept = self._folder.path
        self._desks: OrderedDict[str, Desk] = OrderedDict()
        self._closed: OrderedDict[str, ClosedDesk] = OrderedDict()
        self._lock = Lock()

    def of(self, session: str | None) -> Desk:
        """The session's desk; raises where all are in use, and where there is no session: its desk would be everybody's."""
        if not session:
            raise BadInput(texts.NO_SESSION)
        key = session
        with self._lock:
            if key not in self._desks:
                self._make_room()
                self._desks[key] = self._set_up(self._closed.pop(key, None))
            self._desks.move_to_end(key)
            self._desks[key].touch()
            return self._desks[key]

    def leave(self, session: str | None) -> None:
        with self._lock:
            self._close(session or "")

    def close(self) -> None:
        """Nothing stays behind."""
        with self._lock:
            self._desks.clear()
        self._folder.close()
        shutil.rmtree(self.shown, ignore_errors=True)

    def __len__(self) -> int:
        return len(self._desks)

    def _make_room(self) -> None:
        while len(self._desks) >= self.settings.max_desks:
            now = time.monotonic()
            unused = [key for key, desk in self._desks.items() if not desk.in_use]
            silent = [key for key, desk in self._desks.items() if now - desk.touched > SILENT_S]
            if not unused + silent:
                raise EnvironmentFault(
                    texts.ALL_DESKS_TAKEN.format(most=self.settings.max_desks, minutes=round(SILENT_S / 60))
                )
            self._close((unused + silent)[0])

    def _close(self, key: str) -> None:
        """A closed tab never comes back; one that lost its connection, or made room, does."""
        desk = self._desks.pop(key, None)
        if desk is None:
            return
        if desk.parts or desk.thresholds != desk.usual or desk.artifact != self.shelf.names[0]:
            self._closed[key] = ClosedDesk(desk.artifact, desk.category, desk.thresholds, len(desk.parts))
            while len(self._closed) > MOST_REMEMBERED:
                self._closed.popitem(last=False)
        desk.close()

    def _set_up(self, before: ClosedDesk | None) -> Desk:
        token = secrets.token_urlsafe(18)
        places = Places(self.kept / token, self.shown / token)
        for folder in (places.kept, places.shown):
            folder.mkdir(parents=True)
        desk = Desk(self.shelf, self.settings, places, self.free_bytes)
        if before is not None:
            # Its page still shows these limits: they must decide what comes next.
            desk.choose(before.artifact, before.category)
            desk.thresholds = before.thresholds
            if before.lost_parts:
                desk.notice = texts.PARTS_WERE_CLEARED.format(count=before.lost_parts, minutes=round(SILENT_S / 60))
        return desk

    def free_bytes(self) -> int:
        """What the disk limit leaves beside the desks' files, pictures and exports too, and the uploads."""
        used = bytes_of(self.kept.glob("*/*")) + bytes_of(self.shown.glob("*/*"))
        used += self.uploads.bytes_used() if self.uploads else 0
        return self.settings.max_kept_mb * 2**20 - used
