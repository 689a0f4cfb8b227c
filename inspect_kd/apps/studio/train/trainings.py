"""Start, monitor, stop and resume trainings, each in its own process, so that none can crash the Studio.

Unusual here: all state but the queue is in the runs' folders. A restarted Studio reads it there, recognises running trainings by
process id and start time, and continues to monitor them. A waiting training is started only if the queue names it. One Studio
manages one folder of runs.
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

from inspect_kd.apps.studio.train import processes
from inspect_kd.apps.studio.train.command import build_command, check_name, is_run_name, propose_name
from inspect_kd.apps.studio.train.data_folders import folder_below
from inspect_kd.apps.studio.train.log import ATTEMPT, CommandProgress, LogReader
from inspect_kd.apps.studio.train.queue import TrainingQueue
from inspect_kd.apps.studio.train.record import (
    BUSY,
    LOG,
    MAX_TIME,
    State,
    TrainingRecord,
    TrainRequest,
    check_request,
    read_record,
)
from inspect_kd.child_process import python_environment
from inspect_kd.errors import BadInput, InspectKDError, UsageError
from inspect_kd.file_lock import hold_lock
from inspect_kd.plain_file import open_to_append

GRACE_S = 5.0
"""Time between two of the `SIGNALS`."""
SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL")
"""Signals that stop a training, one after the other until it ends. SIGINT may not be enough: a Studio that was started in the
background ignores it, and so do its trainings. SIGKILL is safe: a resume only needs the checkpoint, which is replaced atomically."""
UPDATE_INTERVAL_S = 1.0
MAX_LISTED, MAX_WAITING = 100, 32
"""Limits of the runs that the page lists, and of the trainings that wait."""
OTHER_STUDIO = (
    "end the Studio that runs there, name another folder with --runs, or leave the Train tab out with --no-train"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """A run in its present state."""

    name: str
    folder: Path
    state: State
    record: TrainingRecord | None
    """None for a run that was not started in the Studio."""
    has_report: bool
    has_artifact: bool = True
    """Whether the artifact exists. A complete training without an artifact failed verification."""
    began_at: float
    """When it was started or requested, in seconds since the epoch."""
    queue_position: int = 0
    """1 for the next training; 0 if it does not wait."""

    @property
    def can_stop(self) -> bool:
        return self.state in (State.RUNNING, State.WAITING)

    @property
    def can_resume(self) -> bool:
        return self.record is not None and self.state in (State.STOPPED, State.FAILED)


class Trainings:
    """The trainings in one folder of runs."""

    def __init__(
        self,
        root: Path,
        runs: Path,
        store: Path,
        *,
        max_running: int = 1,
        grace: float = GRACE_S,
        changes: Sequence[str] = (),
    ) -> None:
        """`store` keeps the queue; `changes` to the recipe (`section.key=value`) apply to every training."""
        self.root, self.runs, self.max_running, self.grace = root.resolve(), runs.resolve(), max_running, grace
        self.changes = tuple(changes)
        self.lock = threading.RLock()
        self.queue = TrainingQueue(store, self.runs)
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.signals_sent: dict[str, tuple[int, float]] = {}
        """Run -> number of signals sent to stop it, and the monotonic time of the last one."""
        self.logs: dict[str, LogReader] = {}

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────
    def start(self, request: TrainRequest) -> Training:
        """Start a training, or queue it while another one runs."""
        check_request(request)
        with self.lock:
            self._check_queue()
            data = folder_below(self.root, request.data)
            name = self._free_name(request.name.strip() or propose_name(data, request.recipe))
            arguments = self._command(request, name, resume=False)
            record = TrainingRecord(name=name, request=request, requested_at=time.time(), command=arguments)
            self.queue.add(record)
            record.write(self.runs / name)
            self.update()
            return self.get(name)

    def stop(self, name: str) -> Training:
        """Stop a training; it ends a moment later, and its checkpoint is kept."""
        with self.lock:
            training = self.get(name)
            if training.record is None or not training.can_stop:
                raise UsageError(f"{name} is {training.state}: nothing to stop")
            training.record.stop_requested_at = time.time()
            training.record.write(training.folder)
            self.queue.remove(name)
            self.update()
            return self.get(name)

    def resume(self, name: str) -> Training:
        """Continue a training from its checkpoint, or from the start if it has none."""
        with self.lock:
            training = self.get(name)
            if training.record is None or not training.can_resume:
                raise UsageError(f"{name} is {training.state}: nothing to resume")
            self._check_queue()
            record = training.record
            self._command(record.request, name, resume=True)  # refuse an invalid request now, not in the queue
            record.pid, record.process_birth, record.stop_requested_at, record.exit_code = None, "", None, None
            record.requested_at, record.problem = time.time(), ""
            self.queue.add(record)
            record.write(training.folder)
            self.update()
            return self.get(name)

    # ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def get(self, name: str) -> Training:
        """One training in its present state."""
        with self.lock:
            self._record_exits()
            training = self._read(self._folder(name))
            if training is None:
                raise BadInput(f"the run {name!r} cannot be read")
            if training.state is not State.WAITING:
                return training
            return next((each for each in self.all() if each.name == name), training)

    def list_for_page(self) -> list[Training]:
        """The runs that the page lists: all running or waiting ones, and the latest of the others."""
        trainings = self.all()
        active = {each.name for each in trainings if each.state in (*BUSY, State.WAITING)}
        others = [each.name for each in trainings if each.name not in active]
        listed = active.union(others[: max(0, MAX_LISTED - len(active))])
        return [each for each in trainings if each.name in listed]

    def all(self) -> list[Training]:
        """Every run, the latest first."""
        with self.lock:
            self._record_exits()
            folders = [path for path in self.runs.iterdir() if path.is_dir()] if self.runs.is_dir() else []
            runs = [path for path in folders if not path.is_symlink() and is_run(path)]
            readable = filter(None, map(self._read, runs))
            trainings = sorted(readable, key=lambda training: -training.began_at)
            queue = [each.name for each in reversed(trainings) if each.state is State.WAITING]
            return [
                replace(each, queue_position=queue.index(each.name) + 1 if each.name in queue else 0)
                for each in trainings
            ]

    def progress(self, name: str) -> CommandProgress:
        """The progress of a training, from its log."""
        with self.lock:
            path = self._folder(name) / LOG
            return self.logs.setdefault(name, LogReader(path)).read()

    def error(self, training: Training) -> str:
        """Why a training failed, in one line; empty if it did not fail."""
        if training.state is not State.FAILED or training.record is None:
            return ""
        if training.record.problem:
            return training.record.problem
        message, code = self.progress(training.name).error, training.record.exit_code
        if code == -signal.SIGKILL:
            return "killed from outside (SIGKILL); if nobody did that, the machine ran out of memory"
        if code is not None and code < 0:
            return f"ended by {processes.describe_exit(code)}" + (f": {message}" if message else "")
        return message or "its process ended without a message" + (
            f" ({processes.describe_exit(code)})" if code else ""
        )

    # ── updates ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def update(self) -> None:
        """Signal trainings that should stop, and start waiting ones up to `max_running`."""
        with self.lock:
            trainings = self.all()
            for training in trainings:
                if training.state is State.STOPPING and training.record is not None:
                    self._signal(training.record)
            free_places = self.max_running - sum(training.state in BUSY for training in trainings)
            waiting = sorted(
                (each for each in trainings if each.state is State.WAITING), key=lambda each: each.queue_position
            )
            for training in waiting[: max(0, free_places)]:
                if training.record is not None:
                    self._try_to_launch(training.record, training.folder)

    def update_in_background(self, on_error: Callable[[Exception], None]) -> threading.Event:
        """Update in a thread until the returned event is set, so that a waiting training starts even if no browser is open.

        Raise if another Studio does this for the same folder: both would start the waiting training.
        """
        stop_event, lock = threading.Event(), ExitStack()
        lock.enter_context(hold_lock(self.runs / ".studio.lock", str(self.runs), OTHER_STUDIO))
        atexit.register(lock.close)

        def update_repeatedly() -> None:
            while not stop_event.wait(UPDATE_INTERVAL_S):
                try:
                    self.update()
                except Exception as error:  # for example, a full disk must not end the monitoring
                    on_error(error)
            lock.close()

        threading.Thread(target=update_repeatedly, name="trainings", daemon=True).start()
        return stop_event

    def _folder(self, name: str) -> Path:
        folder = self.runs / check_name(name)
        if folder.is_symlink() or not is_run(folder):
            raise BadInput(f"no run named {name!r}")
        return folder

    def _command(self, request: TrainRequest, name: str, *, resume: bool) -> list[str]:
        arguments = build_command(request, self.root, self.runs, name, resume=resume)
        return arguments + [argument for change in self.changes for argument in ("--set", change)]

    def _check_queue(self) -> None:
        if sum(each.state is State.WAITING for each in self.all()) >= MAX_WAITING:
            raise UsageError(f"{MAX_WAITING} trainings wait already: stop one of them, or wait until one begins")

    def _free_name(self, wanted: str) -> str:
        name, number = check_name(wanted), 2
        while (self.runs / name).exists() or (self.runs / name).is_symlink():
            name, number = check_name(f"{wanted}-{number}"), number + 1
        return name

    def _read(self, folder: Path) -> Training | None:
        """Read a run; None if it has been removed, or if the Studio may not read it."""
        try:
            return self._read_folder(folder)
        except OSError:
            return None

    def _read_folder(self, folder: Path) -> Training:
        record, complete = read_record(folder), (folder / "run.json").is_file()
        began_at = min(max(0.0, folder.stat().st_mtime), MAX_TIME)
        if record is not None:
            began_at = record.requested_at if record.pid is None else record.started_at or record.requested_at
        return Training(
            name=folder.name,
            folder=folder,
            state=self._state(record, complete=complete),
            record=record,
            has_report=complete and (folder / "report.html").is_file(),
            has_artifact=(folder / f"{folder.name}.onnx").is_file(),
            began_at=began_at,
        )

    def _state(self, record: TrainingRecord | None, *, complete: bool) -> State:
        if record is not None and self._is_alive(record):
            return State.RUNNING if record.stop_requested_at is None else State.STOPPING
        if complete:
            return State.FINISHED
        if record is None:
            return State.EXTERNAL
        if record.problem:
            return State.FAILED
        if record.pid is None:
            return State.WAITING if record.stop_requested_at is None and record in self.queue else State.STOPPED
        return State.FAILED if record.stop_requested_at is None else State.STOPPED

    def _is_alive(self, record: TrainingRecord) -> bool:
        child = self.children.get(record.name)
        if child is not None and child.pid == record.pid:
            return child.poll() is None
        if record.pid is None or not processes.is_alive(record.pid, record.process_birth):
            return False
        # A forged record may name any process, so check that this one is the training of this folder.
        return processes.is_started_with(record.pid, ("--out", str(self.runs), "--name", record.name))

    def _record_exits(self) -> None:
        """Write the exit codes of child processes that have ended into their records. Call this before a state is read."""
        for name, child in list(self.children.items()):
            if child.poll() is None:
                continue
            del self.children[name]
            self.signals_sent.pop(name, None)
            record = read_record(self.runs / name)
            if record is not None and record.pid == child.pid:
                record.exit_code = child.returncode
                record.write(self.runs / name)

    def _signal(self, record: TrainingRecord) -> None:
        """Send the next signal of `SIGNALS`, unless the last one was sent less than the grace period ago."""
        if record.pid is None:
            return
        # The grace period is measured by the monotonic clock, because the machine's clock may be set back meanwhile.
        count, last_sent_at = self.signals_sent.get(record.name, (0, -math.inf))
        now = time.monotonic()
        if count < len(SIGNALS) and now - last_sent_at >= self.grace:
            self.signals_sent[record.name] = count + 1, now
            processes.signal_group(record.pid, getattr(signal, SIGNALS[count], signal.SIGTERM))

    def _try_to_launch(self, record: TrainingRecord, folder: Path) -> None:
        """Launch a training, or record why it failed: the data may have been removed since the request, or the disk may be full."""
        try:
            self._launch(record, folder)
        except (InspectKDError, OSError) as error:
            record.problem = str(error)
            record.write(folder)

    def _launch(self, record: TrainingRecord, folder: Path) -> None:
        record.attempt += 1
        resume = (folder / "recipe.yaml").is_file()
        record.command = self._command(record.request, record.name, resume=resume)
        with open_to_append(folder / LOG, "log of a training") as log:
            log.write(f"\n{json.dumps({ATTEMPT: record.attempt})}\n".encode())
            log.flush()
            # The child gets its own process group, so that neither Ctrl-C at the Studio's terminal nor the Studio's end stops it.
            child = subprocess.Popen(
                record.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=python_environment(),
            )
        self.children[record.name] = child
        self.signals_sent.pop(record.name, None)
        record.pid, record.process_birth = child.pid, processes.process_birth(child.pid) or ""
        record.started_at = time.time()
        record.stop_requested_at = record.exit_code = None
        record.write(folder)
        self.queue.remove(record.name)


def is_run(folder: Path) -> bool:
    """Whether a folder has the files of a run, and a name that the Studio accepts; the page cannot handle others."""
    files = ("run.json", "recipe.yaml", "training.json")
    try:
        return is_run_name(folder.name) and any((folder / name).is_file() for name in files)
    except OSError:  # no permission to enter the folder
        return False
