"""Everything that the Train tab shows and does, without Gradio; its page and its endpoints use this service."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from inspect_kd.apps.studio.train import data_check, run_report, texts, view
from inspect_kd.apps.studio.train.data_check import DataCheck
from inspect_kd.apps.studio.train.data_folders import data_folders, first_sound_parts, folder_below
from inspect_kd.apps.studio.train.log import CommandProgress, Points, read_metrics
from inspect_kd.apps.studio.train.one_at_a_time import one_at_a_time
from inspect_kd.apps.studio.train.record import BUSY
from inspect_kd.apps.studio.train.trainings import Training, Trainings
from inspect_kd.errors import InspectKDError
from inspect_kd.report import pictures_file

MAX_LOG_LINES, MAX_PICTURES = 80, 6


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressView:
    """Everything that the tab shows about the runs."""

    chosen: str | None
    choices: list[tuple[str, str]]
    status: str
    curves: str
    pictures: str
    log: str
    runs: str
    can_stop: bool
    can_resume: bool
    can_open: bool


class TrainService:
    """The trainings of one Studio and the data sets that they may use."""

    def __init__(self, root: Path, runs: Path, store: Path, changes: Sequence[str] = ()) -> None:
        """`root`: the folder below which data sets may be chosen; for `store` and `changes` see `Trainings`."""
        self.root, self.scratch = root.resolve(), store / "checks"
        self.trainings = Trainings(root, runs, store, changes=changes)

    def folders(self) -> list[str]:
        """Folders that look like data sets."""
        return data_folders(self.root)

    def check(self, folder: str) -> Iterator[DataCheck]:
        """Check a data set; the last value is the result."""
        return data_check.check(self.root, folder, self.scratch)

    def progress_view(self, chosen: str | None) -> ProgressView:
        """Render the chosen run; if it no longer exists, the running one, otherwise the latest."""
        trainings = self.trainings.list_for_page()
        training = _select(trainings, chosen)
        progress = self.trainings.progress(training.name) if training else CommandProgress()
        return ProgressView(
            chosen=training.name if training else None,
            choices=[(f"{each.name} · {texts.STATES[each.state][1]}", each.name) for each in trainings],
            status=view.status(training, progress, self.trainings.error(training) if training else ""),
            curves=_curves(training, progress) if training else "",
            pictures=self._pictures(training) if training else "",
            log="\n".join(list(progress.lines)[-MAX_LOG_LINES:]),
            runs=view.runs(trainings),
            can_stop=training is not None and training.can_stop,
            can_resume=training is not None and training.can_resume,
            can_open=training is not None and training.has_report,
        )

    def report(self, name: str) -> str:
        """The page of a run's report."""
        return run_report.read_report(self.trainings.get(name).folder)

    def to_json(self, training: Training) -> dict[str, Any]:
        """The state of a training, for programs."""
        progress = self.trainings.progress(training.name)
        return {
            "name": training.name,
            "state": str(training.state),
            "place": training.queue_position,
            "phase": progress.phase,
            "done": progress.done,
            "total": progress.total,
            "seconds_left": progress.seconds_left if training.state in BUSY else None,
            "loss": progress.loss,
            "gap": progress.gap,
            "error": self.trainings.error(training),
            "report": training.has_report,
        }

    def _pictures(self, training: Training) -> str:
        """The report's pictures, or the first sound training parts if it has none yet or is from an earlier version."""
        try:
            file = training.folder / pictures_file.FILE_NAME
            if training.has_report and file.is_file():
                return _report_pictures(training.folder, file.stat().st_mtime_ns)
            if training.record is not None:
                data = training.record.request.data
                return _sound_parts(folder_below(self.root, data), data)
        except (InspectKDError, OSError):
            pass  # the data has been moved: starting a training or a check reports that
        return ""


def _select(trainings: Sequence[Training], chosen: str | None) -> Training | None:
    by_name = {each.name: each for each in trainings}
    busy = (each for each in trainings if each.state in BUSY)
    return by_name.get(chosen or "") or next(busy, None) or next(iter(trainings), None)


@one_at_a_time
@lru_cache(maxsize=64)
def _sound_parts(folder: Path, name: str) -> str:
    """Pictures of a data set's sound parts. An empty result is cached too, so that each folder is read only once."""
    try:
        return view.sound_parts(name, first_sound_parts(folder))
    except (InspectKDError, OSError):
        return ""


@one_at_a_time
@lru_cache(maxsize=4)
def _report_pictures(run: Path, _modified: int) -> str:
    """The pictures of a report. `_modified` is part of the cache's key, so that a changed file is read again."""
    return view.report_pictures(pictures_file.read_pictures(run, MAX_PICTURES))


def _curves(training: Training, progress: CommandProgress) -> str:
    """Curves from a run's metrics file, or, while it runs, from its log, because its metrics file lags behind."""
    running = training.state in BUSY
    losses, gaps = ({}, []) if running else _metrics(training.folder / "metrics.jsonl")
    return view.curves(losses or progress.losses, gaps or progress.gaps, running=running)


def _metrics(path: Path) -> tuple[dict[str, Points], Points]:
    try:
        return _read_metrics(path, path.stat().st_mtime_ns) if path.is_file() else ({}, [])
    except OSError:  # removed meanwhile, or no permission
        return {}, []


@one_at_a_time
@lru_cache(maxsize=4)
def _read_metrics(path: Path, _modified: int) -> tuple[dict[str, Points], Points]:
    return read_metrics(path)


def digest(value: object) -> str:
    """A short digest of what a component shows, so that only changes are sent."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
