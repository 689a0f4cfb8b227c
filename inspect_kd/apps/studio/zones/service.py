"""Everything that the Zones tab does, without Gradio; its page and its endpoints use this service."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from inspect_kd.apps.studio.train.command import check_name
from inspect_kd.apps.studio.train.trainings import is_run
from inspect_kd.apps.studio.zones import drawn_zones, texts
from inspect_kd.apps.studio.zones.drawn_zones import Frames
from inspect_kd.apps.studio.zones.export import ZoneExport, export_with_zones
from inspect_kd.apps.studio.zones.run_description import RunDescription, describe, hide_root
from inspect_kd.errors import BadInput, UsageError

MAX_LISTED = 100
MANIFEST, STUDENT = "run.json", "student.safetensors"


class ZoneService:
    """The finished runs of one Studio, and zones for them."""

    def __init__(self, root: Path, runs: Path, store: Path) -> None:
        """`root`: the folder below which browsers may see images; made artifacts are kept in `store`."""
        self.root, self.runs, self.folder = root.resolve(), runs, store / "zones"

    def finished_runs(self) -> list[str]:
        """Names of finished runs of students, the latest first."""
        try:
            folders = [path for path in self.runs.iterdir() if self._is_finished(path)]
            folders.sort(key=lambda path: -(path / MANIFEST).stat().st_mtime)
        except OSError:  # there is no folder of runs yet, or a run was removed meanwhile
            return []
        return [path.name for path in folders[:MAX_LISTED]]

    def describe(self, run: str, category: str) -> RunDescription:
        """The frames, zones and median part of a run; "" is its first category."""
        first = self._describe(run, "")
        found = first if category in ("", first.category) else self._describe(run, category)
        if found.fault:
            raise BadInput(hide_root(self.root, found.fault))
        return found

    def frames(self, run: str) -> Frames:
        """The frames of all categories of a run, also where one of them cannot be drawn on."""
        return self._describe(run, "").frames

    def _describe(self, run: str, category: str) -> RunDescription:
        folder = self._folder(run)
        return describe(folder, category, self.root, (folder / MANIFEST).stat().st_mtime_ns)

    def check(self, run: str, category: str, text: str, *, all_categories: bool = False) -> list[str]:
        """Describe the zones of a file's text, a line for each category; raise in one line if something is wrong with them."""
        frames = self.frames(run)
        if category and category not in frames:
            raise BadInput(f"no category {category!r}; there are: {', '.join(frames)}")
        drawn = drawn_zones.check_yaml(text, frames, None if all_categories else category or next(iter(frames)))
        return [f"{name}: {zones.describe()}" if len(drawn) > 1 else zones.describe() for name, zones in drawn.items()]

    def export(self, run: str, text: str) -> Iterator[ZoneExport]:
        """Make an artifact of a run with these zones; thresholds are calibrated with them."""
        self.check(run, "", text, all_categories=True)
        yield from export_with_zones(self._folder(run), text, self.folder)

    def commands(self, description: RunDescription) -> tuple[str, ...]:
        """What to type with the downloaded file instead."""
        run = shlex.quote(str(self.runs / description.run))
        data = shlex.quote(shown_source(description.source, self.root))
        return (
            f"inspect-kd export {run} --zones {drawn_zones.FILE_NAME} --output {shlex.quote(f'{description.run}-zones.onnx')}",
            f"inspect-kd train --data {data} --zones {drawn_zones.FILE_NAME}",
        )

    def _folder(self, run: str) -> Path:
        if not run:
            raise UsageError(texts.NEEDS_RUN)
        folder = self.runs / check_name(run)
        if not self._is_finished(folder):
            raise BadInput(f"no finished run of a student named {run!r}")
        return folder

    @staticmethod
    def _is_finished(folder: Path) -> bool:
        if folder.is_symlink() or not folder.is_dir() or not is_run(folder):
            return False
        return (folder / MANIFEST).is_file() and (folder / STUDENT).is_file()


def shown_source(source: str, root: Path) -> str:
    """Return a data set's path relative to the Studio's data folder, so that browsers do not learn where that folder lies."""
    path = Path(source)
    return str(path.relative_to(root)) if path.is_absolute() and path.is_relative_to(root) else source
