"""What every tab of the Studio uses: settings, artifacts, sessions, marks, uploads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from inspect_kd.apps.studio.artifact.library import ArtifactLibrary
from inspect_kd.apps.studio.inspect.marks import MarkContext, MarkStore
from inspect_kd.apps.studio.server.uploads import Uploads
from inspect_kd.apps.studio.session import Session
from inspect_kd.apps.studio.sessions import Sessions
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.sign_off import SignOff


@dataclass(frozen=True, slots=True)
class Studio:
    """The components of one running Studio."""

    settings: Settings
    library: ArtifactLibrary
    sessions: Sessions
    marks: MarkStore
    uploads: Uploads
    """Files that browsers have sent; a browser's event that names any other file is refused."""

    def mark_context(self, session: Session, by: str) -> MarkContext:
        """The session's artifact and thresholds, for a mark."""
        return MarkContext(
            artifact=session.artifact,
            artifact_sha256=session.inspector.digest,
            category=session.category,
            thresholds=session.thresholds,
            by=by,
        )

    def sign_off(self, session: Session, by: str) -> Path:
        """Write the session's thresholds as a new sign-off file; raise if `by` is not a valid name."""
        with session.lock:  # no other event may change artifact or thresholds meanwhile
            sign_off = SignOff(
                by=by.strip(),
                thresholds=session.thresholds,
                default_thresholds=session.default_thresholds,
                artifact=session.artifact,
                sha256=session.inspector.digest,
                category=session.category,
                expected_effect=session.what_if().to_json(),
            )
        return sign_off.write(self.settings.store / "calibrations")


def address(path: Path) -> str:
    """The address of a picture or an export for the browser: relative, so that it works behind a proxy too."""
    return f"gradio_api/file={quote(str(path))}"
