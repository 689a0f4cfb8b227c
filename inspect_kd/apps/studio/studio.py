"""What every tab of the Studio is handed: the shelf, the desks, the book of marks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from inspect_kd.apps.studio.desk import Desk
from inspect_kd.apps.studio.desks import Desks
from inspect_kd.apps.studio.marks import Context, MarkBook
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.apps.studio.shelf import Shelf
from inspect_kd.apps.studio.uploads import Uploads
from inspect_kd.sign_off import SignOff


@dataclass(frozen=True, slots=True)
class Studio:
    settings: Settings
    shelf: Shelf
    desks: Desks
    marks: MarkBook
    uploads: Uploads
    """What browsers have sent; nothing from elsewhere is opened for them."""

    def context(self, desk: Desk, by: str) -> Context:
        return Context(
            artifact=desk.artifact,
            sha256=desk.inspector.digest,
            category=desk.category,
            thresholds=desk.thresholds,
            by=by,
        )

    def sign_off(self, desk: Desk, by: str) -> Path:
        """A new calibration file in the store; raises where no name stands behind it."""
        with desk.lock:  # an artifact that is changed meanwhile must not stand over the former one's limits
            signed = SignOff(
                by=by.strip(),
                thresholds=desk.thresholds,
                was=desk.usual,
                artifact=desk.artifact,
                sha256=desk.inspector.digest,
                category=desk.category,
                seen=desk.what_if().to_json(),
            )
        return signed.write(self.settings.store / "calibrations")


def address(path: Path) -> str:
    """Where the browser fetches a picture: relative, so that it holds behind a proxy too."""
    return f"gradio_api/file={quote(str(path))}"
