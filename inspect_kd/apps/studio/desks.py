"""One desk a browser tab, so many and no more; whoever leaves takes everything along.

Files lie in two folders: what the browser may fetch below Gradio's own, originals and heatmaps where no address leads.
"""

from __future__ import annotations

import secrets
import shutil
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from inspect_kd.apps.studio.desk import Desk
from inspect_kd.apps.studio.parts import Places
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.apps.studio.shelf import Shelf
from inspect_kd.apps.studio.temporary_folder import TemporaryFolder
from inspect_kd.apps.studio.uploads import Uploads, bytes_of


class Desks:
    def __init__(self, shelf: Shelf, settings: Settings, shown: Path, uploads: Uploads | None = None) -> None:
        self.shelf, self.settings, self.shown, self.uploads = shelf, settings, shown, uploads
        self._folder = TemporaryFolder("inspect-kd-studio-")
        self.kept = self._folder.path
        self._desks: OrderedDict[str, Desk] = OrderedDict()
        self._lock = Lock()

    def of(self, session: str | None) -> Desk:
        """The session's desk; a new one may cost the one that was silent longest."""
        key = session or ""
        with self._lock:
            if key not in self._desks:
                while len(self._desks) >= self.settings.max_desks:
                    self._desks.popitem(last=False)[1].close()
                self._desks[key] = self._set_up()
            self._desks.move_to_end(key)
            return self._desks[key]

    def leave(self, session: str | None) -> None:
        with self._lock:
            desk = self._desks.pop(session or "", None)
        if desk is not None:
            desk.close()

    def close(self) -> None:
        """Nothing stays behind."""
        with self._lock:
            self._desks.clear()
        self._folder.close()
        shutil.rmtree(self.shown, ignore_errors=True)

    def __len__(self) -> int:
        return len(self._desks)

    def _set_up(self) -> Desk:
        token = secrets.token_urlsafe(18)
        places = Places(self.kept / token, self.shown / token)
        for folder in (places.kept, places.shown):
            folder.mkdir(parents=True)
        return Desk(self.shelf, self.settings, places, self.free_bytes)

    def free_bytes(self) -> int:
        """What the disk limit leaves beside the desks' files and the uploads that wait to be read."""
        used = bytes_of(self.kept.glob("*/*"))
        used += self.uploads.bytes_used() if self.uploads else 0
        return self.settings.max_kept_mb * 2**20 - used
