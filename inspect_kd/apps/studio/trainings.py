"""Trainings as processes of their own: started, watched, stopped and resumed; none of them can take the Studio down.

Unusual here: all that is known lies in the runs' folders. A Studio that is started again reads it there, finds the process
that still trains by its id and birth, and goes on watching it. One Studio looks after one folder of runs.
"""

from __future__ import annotations

import atexit
import json
import math
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from inspect_kd.apps.studio import processes
from inspect_kd.apps.studio.data_folders import inside
from inspect_kd.apps.studio.training_command import checked_name, command, is_run_name, proposed_name
from inspect_kd.apps.studio.training_log import ATTEMPT, Figures, LogReader
from inspect_kd.apps.studio.training_record import BUSY, LATEST, LOG, Order, Record, State, check_order, read_record
from inspect_kd.child_process import python_environment
from inspect_kd.errors import BadInput, InspectKDError, UsageError
from inspect_kd.file_lock import hold_lock
from inspect_kd.plain_file import open_to_append

GRACE_S = 5.0
"""From one signal to the next rougher one. The first says the friendliest good-bye, but a Studio that was itself started in
the background hands its deafness for it down; all a resume needs is the checkpoint, which is replaced in one move."""
SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL")
LOOK_EVERY_S = 1.0
MOST_LISTED, MOST_WAITING = 100, 32
OTHER_STUDIO = (
    "end the Studio that runs there, name another folder with --runs, or leave the Train tab out with --no-train"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One run as it stands now."""

    name: str
    folder: Path
    state: State
    record: Record | None
    """None for a run that was not started here."""
    has_report: bool
    has_artifact: bool = True
    """False where a training is complete but its artifact failed its proof."""
    since: float
    """When it began or was asked for, in seconds since the epoch."""
    place: int = 0
    """In the queue, 1 is next; 0 where it does not wait."""

    @property
    def can_stop(self) -> bool:
        return self.state in (State.RUNNING, State.WAITING)

    @property
    def can_resume(self) -> bool:
        return self.record is not None and self.state in (State.STOPPED, State.FAILED)


class Trainings:
    """The trainings in one folder of runs."""

    def __init__(
        self, root: Path, runs: Path, *, at_once: int = 1, grace: float = GRACE_S, changes: Sequence[str] = ()
    ) -> None:
        """`changes` of the recipe (`section.key=value`) go with every training: a plant's own defaults."""
        self.root, self.runs, self.at_once, self.grace = root.resolve(), runs.resolve(), at_once, grace
        self.changes = tuple(changes)
        self.lock = threading.RLock()
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.signalled: dict[str, tuple[int, float]] = {}
        """How many signals a training was sent, and when the last one, by the monotonic clock."""
        self.logs: dict[str, LogReader] = {}

    # ── what a person asks for ───────────────────────────────────────────────────────────────────────────────────────
    def start(self, order: Order) -> Training:
        """Begin, or wait for the training that runs."""
        check_order(order)
        with self.lock:
            self._check_queue()
            name = self._free_name(order.name.strip() or proposed_name(inside(self.root, order.data), order.recipe))
            words = self._command(order, name, resume=False)
            Record(name=name, order=order, asked=time.time(), command=words).write(self.runs / name)
            self.tend()
            return self.look(name)

    def stop(self, name: str) -> Training:
        """Ask it to end; it ends a moment later, and what its checkpoint holds is not lost."""
        with self.lock:
            training = self.look(name)
            if training.record is None or not training.can_stop:
                raise UsageError(f"{name} is {training.state}: nothing to stop")
            training.record.stop_asked = time.time()
            training.record.write(training.folder)
            self.tend()
            return self.look(name)

    def resume(self, name: str) -> Training:
        """Go on from the checkpoint, or from the start where it had not come that far."""
        with self.lock:
            training = self.look(name)
            if training.record is None or not training.can_resume:
                raise UsageError(f"{name} is {training.state}: nothing to resume")
            self._check_queue()
            record = training.record
            self._command(record.order, name, resume=True)  # refuses now, not in the queue
            record.pid, record.born, record.stop_asked, record.exit_code = None, "", None, None
            record.asked, record.problem = time.time(), ""
            record.write(training.folder)
            self.tend()
            return self.look(name)

    # ── what is known ────────────────────────────────────────────────────────────────────────────────────────────────
    def look(self, name: str) -> Training:
        """One training as it stands now."""
        with self.lock:
            self._fetch()
            found = self._stands(self._folder(name))
            if found.state is not State.WAITING:
                return found
            return next((each for each in self.all() if each.name == name), found)

    def listed(self) -> list[Training]:
        """The runs that a page shows: all that run or wait, and the latest of the others."""
        every = self.all()
        active = {each.name for each in every if each.state in (*BUSY, State.WAITING)}
        others = [each.name for each in every if each.name not in active]
        shown = active.union(others[: max(0, MOST_LISTED - len(active))])
        return [each for each in every if each.name in shown]

    def all(self) -> list[Training]:
        """Every run, the latest first."""
        with self.lock:
            self._fetch()
            folders = [path for path in self.runs.iterdir() if path.is_dir()] if self.runs.is_dir() else []
            ours = [path for path in folders if not path.is_symlink() and _is_run(path)]
            found = sorted(map(self._stands, ours), key=lambda training: -training.since)
            queue = [each.name for each in reversed(found) if each.state is State.WAITING]
            return [replace(each, place=queue.index(each.name) + 1 if each.name in queue else 0) for each in found]

    def figures(self, name: str) -> Figures:
        """What its log tells."""
        with self.lock:
            path = self._folder(name) / LOG
            return self.logs.setdefault(name, LogReader(path)).read()

    def complaint(self, training: Training) -> str:
        """Why it failed, in one line; empty where it did not."""
        if training.state is not State.FAILED or training.record is None:
            return ""
        if training.record.problem:
            return training.record.problem
        said, code = self.figures(training.name).complaint, training.record.exit_code
        if code == -signal.SIGKILL:
            return "killed from outside (SIGKILL); where nobody did, the machine ran out of memory"
        if code is not None and code < 0:
            return f"ended by {processes.ended_by(code)}" + (f": {said}" if said else "")
        return said or "its process ended without a word" + (f" ({processes.ended_by(code)})" if code else "")

    # ── the round that is made every second ──────────────────────────────────────────────────────────────────────────
    def tend(self) -> None:
        """Press who was asked to stop, start who waits."""
        with self.lock:
            now = self.all()
            for training in now:
                if training.state is State.STOPPING and training.record is not None:
                    self._press(training.record)
            free = self.at_once - sum(training.state in BUSY for training in now)
            waiting = sorted((each for each in now if each.state is State.WAITING), key=lambda each: each.place)
            for training in waiting[: max(0, free)]:
                if training.record is not None:
                    self._try_to_launch(training.record, training.folder)

    def keep_tending(self, on_error: Callable[[Exception], None]) -> threading.Event:
        """In a thread of its own, until the event is set: a training that waits starts with no browser open, too.

        Raises where another Studio does this for the same folder: both would start the training that waits.
        """
        enough, held = threading.Event(), ExitStack()
        held.enter_context(hold_lock(self.runs / ".studio.lock", str(self.runs), OTHER_STUDIO))
        atexit.register(held.close)

        def rounds() -> None:
            while not enough.wait(LOOK_EVERY_S):
                try:
                    self.tend()
                except Exception as error:  # a full disk must not end the progress over what runs
                    on_error(error)
            held.close()

        threading.Thread(target=rounds, name="trainings", daemon=True).start()
        return enough

    # ── behind it ────────────────────────────────────────────────────────────────────────────────────────────────────
    def _folder(self, name: str) -> Path:
        folder = self.runs / checked_name(name)
        if folder.is_symlink() or not _is_run(folder):
            raise BadInput(f"no run named {name!r}")
        return folder

    def _command(self, order: Order, name: str, *, resume: bool) -> list[str]:
        words = command(order, self.root, self.runs, name, resume=resume)
        return words + [word for change in self.changes for word in ("--set", change)]

    def _check_queue(self) -> None:
        if sum(each.state is State.WAITING for each in self.all()) >= MOST_WAITING:
            raise UsageError(f"{MOST_WAITING} trainings wait already: stop one of them, or wait until one begins")

    def _free_name(self, wanted: str) -> str:
        name, number = checked_name(wanted), 2
        while (self.runs / name).exists() or (self.runs / name).is_symlink():
            name, number = checked_name(f"{wanted}-{number}"), number + 1
        return name

    def _stands(self, folder: Path) -> Training:
        record, complete = read_record(folder), (folder / "run.json").is_file()
        since = min(max(0.0, folder.stat().st_mtime), LATEST)
        if record is not None:
            since = record.asked if record.pid is None else record.began or record.asked
        return Training(
            name=folder.name,
            folder=folder,
            state=self._state(record, complete=complete),
            record=record,
            has_report=complete and (folder / "report.html").is_file(),
            has_artifact=(folder / f"{folder.name}.onnx").is_file(),
            since=since,
        )

    def _state(self, record: Record | None, *, complete: bool) -> State:
        if record is not None and self._alive(record):
            return State.RUNNING if record.stop_asked is None else State.STOPPING
        if complete:
            return State.FINISHED
        if record is None:
            return State.UNFINISHED
        if record.problem:
            return State.FAILED
        if record.pid is None:
            return State.WAITING if record.stop_asked is None else State.STOPPED
        return State.FAILED if record.stop_asked is None else State.STOPPED

    def _alive(self, record: Record) -> bool:
        child = self.children.get(record.name)
        if child is not None and child.pid == record.pid:
            return child.poll() is None
        if record.pid is None or not processes.is_still(record.pid, record.born):
            return False
        # A record that somebody planted may name any process: this one must be the training of this folder.
        return processes.is_started_with(record.pid, ("--out", str(self.runs), "--name", record.name))

    def _fetch(self) -> None:
        """Take note of how our own children ended, before anybody is told that they have."""
        for name, child in list(self.children.items()):
            if child.poll() is None:
                continue
            del self.children[name]
            self.signalled.pop(name, None)
            record = read_record(self.runs / name)
            if record is not None and record.pid == child.pid:
                record.exit_code = child.returncode
                record.write(self.runs / name)

    def _press(self, record: Record) -> None:
        """The next signal when its time has come, each only once."""
        if record.pid is None:
            return
        # By the monotonic clock, not by the time of the request: somebody may set the machine's clock back meanwhile.
        sent, last = self.signalled.get(record.name, (0, -math.inf))
        now = time.monotonic()
        if sent < len(SIGNALS) and now - last >= self.grace:
            self.signalled[record.name] = sent + 1, now
            processes.tell_group(record.pid, getattr(signal, SIGNALS[sent], signal.SIGTERM))

    def _try_to_launch(self, record: Record, folder: Path) -> None:
        """What was fine when it was asked for may be gone by now: the folder, the disk's space."""
        try:
            self._launch(record, folder)
        except (InspectKDError, OSError) as error:
            record.problem = str(error)
            record.write(folder)

    def _launch(self, record: Record, folder: Path) -> None:
        record.attempt += 1
        resume = (folder / "recipe.yaml").is_file()
        record.command = self._command(record.order, record.name, resume=resume)
        with open_to_append(folder / LOG, "log of a training") as log:
            log.write(f"\n{json.dumps({ATTEMPT: record.attempt})}\n".encode())
            log.flush()
            # A process group of its own: neither Ctrl-C at the Studio's terminal nor the Studio's end reaches it.
            child = subprocess.Popen(
                record.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=python_environment(),
            )
        self.children[record.name] = child
        self.signalled.pop(record.name, None)
        record.pid, record.born, record.began = child.pid, processes.birth(child.pid) or "", time.time()
        record.stop_asked = record.exit_code = None
        record.write(folder)


def _is_run(folder: Path) -> bool:
    """By its files, and by a name that a client may send back: one that is refused would break the page for everybody."""
    files = ("run.json", "recipe.yaml", "training.json")
    return is_run_name(folder.name) and any((folder / name).is_file() for name in files)
