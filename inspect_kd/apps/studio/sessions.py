"""The sessions of a Studio: one per browser tab, up to a limit, each with its own folders.

To make room for a new session, only an empty or long idle session is closed; a client whose parts were lost gets a message.

Each session has two folders: one for what the browser may fetch, below Gradio's own folder, and a private one for originals and
heatmaps.
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
from inspect_kd.apps.studio.artifact.library import ArtifactLibrary
from inspect_kd.apps.studio.inspect.parts import SessionFolders
from inspect_kd.apps.studio.server.temporary_folder import TemporaryFolder
from inspect_kd.apps.studio.server.uploads import Uploads, bytes_below
from inspect_kd.apps.studio.session import Session
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.errors import BadInput, EnvironmentFault
from inspect_kd.types import Thresholds

IDLE_S = 1800.0
"""After this time a session with parts may be closed for a new one."""
MAX_REMEMBERED = 256
"""Limit of the closed sessions whose artifact and thresholds are remembered."""


@dataclass(frozen=True, slots=True)
class ClosedSession:
    """State of a closed session, restored when its client returns; the number of lost parts is reported."""

    artifact: str
    category: str | None
    thresholds: Thresholds
    lost_parts: int


class Sessions:
    """All open sessions, by the key that Gradio sends with each request."""

    def __init__(
        self, library: ArtifactLibrary, settings: Settings, served: Path, uploads: Uploads | None = None
    ) -> None:
        """`served`: the folder for what browsers may fetch."""
        self.library, self.settings, self.served, self.uploads = library, settings, served, uploads
        self._folder = TemporaryFolder("inspect-kd-studio-")
        self.private = self._folder.path
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._closed: OrderedDict[str, ClosedSession] = OrderedDict()
        self._lock = Lock()

    def get(self, key: str | None) -> Session:
        """Find or open a session. Raise if all are in use, or if there is no key: all clients without one would share a session."""
        if not key:
            raise BadInput(texts.NO_SESSION)
        with self._lock:
            if key not in self._open:
                self._make_room()
                self._open[key] = self._new_session(self._closed.pop(key, None))
            self._open.move_to_end(key)
            self._open[key].touch()
            return self._open[key]

    def close_session(self, key: str | None) -> None:
        """Close a session and remove its files."""
        with self._lock:
            self._close(key or "")

    def close(self) -> None:
        """Close all sessions and remove all files."""
        with self._lock:
            self._open.clear()
        self._folder.close()
        shutil.rmtree(self.served, ignore_errors=True)

    def __len__(self) -> int:
        return len(self._open)

    def _make_room(self) -> None:
        while len(self._open) >= self.settings.max_sessions:
            now = time.monotonic()
            unused_keys = [key for key, session in self._open.items() if not session.is_used]
            idle_keys = [key for key, session in self._open.items() if now - session.last_active > IDLE_S]
            if not unused_keys + idle_keys:
                raise EnvironmentFault(
                    texts.ALL_SESSIONS_IN_USE.format(maximum=self.settings.max_sessions, minutes=round(IDLE_S / 60))
                )
            self._close(min(unused_keys or idle_keys, key=lambda key: self._open[key].last_active))

    def _close(self, key: str) -> None:
        session = self._open.pop(key, None)
        if session is None:
            return
        # The client may return: its connection was lost, or its session was closed to make room.
        is_default = session.thresholds == session.default_thresholds and session.artifact == self.library.names[0]
        if session.parts or not is_default:
            self._closed[key] = ClosedSession(
                session.artifact, session.category, session.thresholds, len(session.parts)
            )
            while len(self._closed) > MAX_REMEMBERED:
                self._closed.popitem(last=False)
        session.close()

    def _new_session(self, closed: ClosedSession | None) -> Session:
        token = secrets.token_urlsafe(18)
        folders = SessionFolders(self.private / token, self.served / token)
        for folder in folders:
            folder.mkdir(parents=True)
        session = Session(self.library, self.settings, folders, self.free_bytes)
        if closed is not None:
            # The page still shows these thresholds, so they must decide its next parts.
            session.set_artifact(closed.artifact, closed.category)
            session.thresholds = closed.thresholds
            if closed.lost_parts:
                session.notice = texts.PARTS_WERE_CLEARED.format(count=closed.lost_parts, minutes=round(IDLE_S / 60))
        return session

    def free_bytes(self) -> int:
        """The disk limit less the files of all sessions and the uploads."""
        used = bytes_below(self.private, 1) + bytes_below(self.served, 1)
        used += self.uploads.bytes_used() if self.uploads else 0
        return self.settings.max_kept_mb * 2**20 - used
