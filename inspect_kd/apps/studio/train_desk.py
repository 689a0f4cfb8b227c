"""What the Train tab shows and does, without Gradio: one desk serves the page and the programs that call it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from inspect_kd.apps.studio import data_check, run_report, train_view
from inspect_kd.apps.studio.data_check import Check
from inspect_kd.apps.studio.data_folders import data_folders, first_sound, inside
from inspect_kd.apps.studio.one_at_a_time import one_at_a_time
from inspect_kd.apps.studio.train_texts import Train
from inspect_kd.apps.studio.training_log import Figures, Points, history
from inspect_kd.apps.studio.training_record import BUSY
from inspect_kd.apps.studio.trainings import Training, Trainings
from inspect_kd.errors import InspectKDError

LOG_LINES = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """Everything that the tab shows of a moment."""

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


class Desk:
    """The trainings of one Studio, as a page and as answers to programs."""

    def __init__(self, root: Path, runs: Path, store: Path, changes: Sequence[str] = ()) -> None:
        self.root, self.scratch = root.resolve(), store / "checks"
        self.trainings = Trainings(root, runs, changes=changes)

    def folders(self) -> list[str]:
        return data_folders(self.root)

    def check(self, folder: str) -> Iterator[Check]:
        return data_check.check(self.root, folder, self.scratch)

    def sight(self, chosen: str | None) -> Sight:
        """The chosen run, else the one that runs, else the latest; a run that has vanished is none."""
        every = self.trainings.listed()
        found = {each.name: each for each in every}
        training = found.get(chosen or "") or next((each for each in every if each.state in BUSY), None)
        training = training or next(iter(every), None)
        figures = self.trainings.figures(training.name) if training else Figures()
        return Sight(
            chosen=training.name if training else None,
            choices=[(f"{each.name} · {Train.STATES[each.state][1]}", each.name) for each in every],
            status=train_view.status(training, figures, self.trainings.complaint(training) if training else ""),
            curves=_curves(training, figures) if training else "",
            pictures=self._pictures(training) if training else "",
            log="\n".join(list(figures.lines)[-LOG_LINES:]),
            runs=train_view.runs(every),
            can_stop=training is not None and training.can_stop,
            can_resume=training is not None and training.can_resume,
            can_open=training is not None and training.has_report,
        )

    def report(self, name: str) -> str:
        return run_report.read_report(self.trainings.look(name).folder)

    def told(self, training: Training) -> dict[str, Any]:
        """A training for a program."""
        figures = self.trainings.figures(training.name)
        return {
            "name": training.name,
            "state": str(training.state),
            "place": training.place,
            "phase": figures.phase,
            "done": figures.done,
            "total": figures.total,
            "seconds_left": figures.seconds_left if training.state in BUSY else None,
            "loss": figures.loss,
            "gap": figures.gap,
            "error": self.trainings.complaint(training),
            "report": training.has_report,
        }

    def _pictures(self, training: Training) -> str:
        """The report's, where there is one; until then the first sound parts of what is trained on."""
        try:
            if training.has_report:
                return _inspected(training.folder, (training.folder / "report.html").stat().st_mtime_ns)
            if training.record is not None:
                return _sound(inside(self.root, training.record.order.data), training.record.order.data)
        except (InspectKDError, OSError):
            pass  # moved away since; whoever needs it will say so
        return ""


@lru_cache(maxsize=64)
def _sound(folder: Path, name: str) -> str:
    return train_view.sound_parts(name, first_sound(folder))


@one_at_a_time
@lru_cache(maxsize=4)
def _inspected(run: Path, _changed: int) -> str:
    return train_view.inspected_parts(run_report.pictures_of(run_report.read_report(run)))


def _curves(training: Training, figures: Figures) -> str:
    """From the run's own metrics once it stands still; while it runs they are written in gusts, and the log is ahead."""
    running = training.state in BUSY
    losses, gaps = ({}, []) if running else _history(training.folder / "metrics.jsonl")
    return train_view.curves(losses or figures.losses, gaps or figures.gaps, running=running)


def _history(metrics: Path) -> tuple[dict[str, Points], Points]:
    return _read_history(metrics, metrics.stat().st_mtime_ns) if metrics.is_file() else ({}, [])


@one_at_a_time
@lru_cache(maxsize=4)
def _read_history(metrics: Path, _changed: int) -> tuple[dict[str, Points], Points]:
    return history(metrics)


def digest(shown: object) -> str:
    """Tells whether something has changed since it was sent; what has not is not sent again."""
    return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]
