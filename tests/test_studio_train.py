"""Trainings from the Studio: real processes, started, stopped, killed, resumed, found again; and the tab in a browser."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from inspect_kd.apps.studio.train import data_check, processes, run_report, texts, view
from inspect_kd.apps.studio.train import data_folders as data_folders_module
from inspect_kd.apps.studio.train import service as service_module
from inspect_kd.apps.studio.train.command import build_command, default_recipe, list_recipes
from inspect_kd.apps.studio.train.data_folders import data_folders, first_sound_parts, folder_below
from inspect_kd.apps.studio.train.log import CommandProgress, parse_line, read_metrics
from inspect_kd.apps.studio.train.record import RECORD, State, TrainingRecord, TrainRequest, read_record
from inspect_kd.apps.studio.train.service import TrainService
from inspect_kd.apps.studio.train.trainings import MAX_WAITING, Trainings
from inspect_kd.errors import BadInput, InspectKDError, UsageError
from inspect_kd.report import pictures_file
from tests.studio_server import chromium, need
from tests.tiny import TINY

PATIENCE_S = 120
LONG_TRAINING = [*TINY, "fit.steps=4000", "fit.evaluate_every=4000"]
"""Settings of a training that does not end during a test."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.1)


def wait_for_state(trainings: Trainings, name: str, *states: State) -> State:
    """Update the trainings until one has one of these states."""

    def is_reached() -> bool:
        trainings.update()
        return trainings.get(name).state in states

    wait_until(is_reached, f"{name} {' or '.join(states)}")
    return trainings.get(name).state


@pytest.fixture
def root(parts: Path) -> Path:
    """The folder below which clients may choose data; it holds the data set `sample`."""
    return parts.parent


@pytest.fixture
def make_trainings(root: Path, tmp_path: Path) -> Iterator[Callable[..., Trainings]]:
    """A function that makes `Trainings` whose processes end with the test."""
    created: list[Trainings] = []

    def make(changes: list[str] = TINY, runs: str = "runs") -> Trainings:
        created.append(Trainings(root, tmp_path / runs, tmp_path / "store", changes=changes, grace=2.0))
        return created[-1]

    yield make
    for trainings in created:
        for each in trainings.all():
            if each.can_stop:
                trainings.stop(each.name)
            if each.state in (State.RUNNING, State.STOPPING, State.WAITING):
                wait_for_state(trainings, each.name, State.STOPPED, State.FINISHED, State.FAILED)
        for child in trainings.children.values():
            child.wait()


def request(**changes: object) -> TrainRequest:
    return TrainRequest(**{"data": "sample", "recipe": "embedded", "name": "r", **changes})  # type: ignore[arg-type]


# ── real trainings ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(
    make_trainings: Callable[..., Trainings], run: Path, tmp_path: Path
) -> None:
    trainings = make_trainings()
    assert trainings.start(request()).state is State.RUNNING
    folder = tmp_path / "runs" / "r"
    wait_until((folder / "checkpoint.safetensors").is_file, "a checkpoint")
    with pytest.raises(UsageError, match="nothing to resume"):
        trainings.resume("r")
    assert trainings.stop("r").state in (State.STOPPING, State.STOPPED)
    wait_for_state(trainings, "r", State.STOPPED)
    stopped = trainings.get("r")
    assert stopped.can_resume and not stopped.can_stop and not stopped.has_report
    assert "--resume" not in stopped.record.command  # type: ignore[union-attr]

    trainings.resume("r")
    wait_for_state(trainings, "r", State.FINISHED, State.FAILED)
    finished, progress = trainings.get("r"), trainings.progress("r")
    assert finished.state is State.FINISHED, trainings.error(finished)
    assert "--resume" in finished.record.command and finished.record.exit_code == 0  # type: ignore[union-attr]
    assert progress.attempt == 2 and any(line.startswith("resuming at step") for line in progress.lines)
    steps = [step for step, _ in progress.losses["train"]]
    assert steps == sorted(set(steps)) and steps[-1] == 24 and progress.gaps[-1][0] == 24
    digests = [hashlib.sha256((path / "student.safetensors").read_bytes()).hexdigest() for path in (folder, run)]
    assert digests[0] == digests[1], "the student differs from that of an uninterrupted training"
    assert finished.has_report and finished.name in run_report.read_report(folder)
    losses, gaps = read_metrics(folder / "metrics.jsonl")
    assert [step for step, _ in losses["train"]] == list(range(1, 25)) and [step for step, _ in gaps] == [6, 12, 18, 24]
    with pytest.raises(UsageError, match="nothing to stop"):
        trainings.stop("r")
    # The next training of that name gets another folder.
    assert trainings.start(request()).name == "r-2"


def test_killed_training_has_failed_and_the_queue_moves_on(make_trainings: Callable[..., Trainings]) -> None:
    trainings = make_trainings(LONG_TRAINING)
    pid = trainings.start(request()).record.pid  # type: ignore[union-attr]
    second = trainings.start(request(name="second"))
    third = trainings.start(request(name="third"))
    assert (second.state, second.queue_position, third.queue_position) == (State.WAITING, 1, 2), (
        "a second training runs, or a waiting one does not show its place"
    )
    assert "Place in the queue: 2" in view.status(third, CommandProgress(), "")
    trainings.stop("third")
    assert trainings.get("third").state is State.STOPPED and trainings.get("third").record.pid is None  # type: ignore[union-attr]

    os.kill(pid, signal.SIGKILL)  # type: ignore[arg-type]
    assert wait_for_state(trainings, "r", State.FAILED) is State.FAILED
    assert "SIGKILL" in trainings.error(trainings.get("r")) and trainings.get("r").can_resume
    assert wait_for_state(trainings, "second", State.RUNNING) is State.RUNNING, "the queue did not move on"
    restarted = Trainings(trainings.root, trainings.runs, trainings.queue.path.parent)
    assert "SIGKILL" in restarted.error(restarted.get("r")), "a restarted Studio shows another error"


STARTER = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for background processes
from pathlib import Path
from inspect_kd.apps.studio.train.record import TrainRequest
from inspect_kd.apps.studio.train.trainings import Trainings
root, runs, *changes = sys.argv[1:]
trainings = Trainings(Path(root), Path(runs), Path(runs).parent / "store", changes=changes)
print(trainings.start(TrainRequest(data="sample", recipe="embedded", name="r")).record.pid)
sys.stdout.flush()
import os
os._exit(0)  # like a Studio that crashes
"""


def test_restarted_studio_finds_the_running_training(
    make_trainings: Callable[..., Trainings], root: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-c", STARTER, str(root), str(tmp_path / "runs"), *LONG_TRAINING]
    pid = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    trainings = make_trainings(LONG_TRAINING)
    training = trainings.get("r")
    assert training.state is State.RUNNING and training.record.pid == pid  # type: ignore[union-attr]
    assert trainings.start(request(name="next")).state is State.WAITING, (
        "the training that was found does not count as running"
    )
    trainings.stop("next")
    wait_until(lambda: trainings.progress("r").losses, "its progress")
    assert trainings.progress("r").phase == "train" and trainings.progress("r").total == 4000
    trainings.stop("r")
    wait_for_state(trainings, "r", State.STOPPED)  # at the second signal, because it ignores the first
    # An exiting process has lost the command line by which the Studio recognises it.
    wait_until(lambda: processes.process_birth(pid) is None, "its end")


def test_reused_process_id_is_neither_monitored_nor_signalled(
    make_trainings: Callable[..., Trainings], root: Path, tmp_path: Path
) -> None:
    other_process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        birth = processes.process_birth(other_process.pid)
        assert (
            birth
            and processes.is_alive(other_process.pid, birth)
            and not processes.is_alive(other_process.pid, birth + "0")
        )
        for number, recorded_birth in enumerate(("", "another boot/12345", birth + "0")):
            record = TrainingRecord(
                name=f"r{number}",
                request=request(),
                requested_at=1.0,
                attempt=1,
                pid=other_process.pid,
                process_birth=recorded_birth,
                started_at=1.0,
            )
            record.write(tmp_path / "runs" / f"r{number}")
        trainings = make_trainings()
        trainings.update()
        assert [each.state for each in trainings.all()] == [State.FAILED] * 3
        for each in trainings.all():
            with pytest.raises(UsageError, match="nothing to stop"):
                trainings.stop(each.name)
        # A stop that was requested before a restart must not signal the other process.
        record.stop_requested_at = 1.0
        record.write(tmp_path / "runs" / record.name)
        trainings.update()
        assert trainings.get(record.name).state is State.STOPPED and other_process.poll() is None
    finally:
        other_process.kill()
        other_process.wait()


def name_arguments(tmp_path: Path, *names: str) -> list[str]:
    """For each name, the arguments --out and --name by which the Studio recognises a training's process."""
    return [word for name in names for word in ("--out", str(tmp_path.resolve() / "runs"), "--name", name)]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A sleeping process whose arguments are those of the trainings `live` and `r`, so that the Studio takes it for them."""
    program = "import time; print('ready', flush=True); time.sleep(600)"
    words = [sys.executable, "-P", "-c", program, *name_arguments(tmp_path, "live", "r")]
    process = subprocess.Popen(words, start_new_session=True, stdout=subprocess.PIPE)
    # Interrupted before its code runs, Python ends with 1 and not by the signal.
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.communicate()


def write_record(runs: Path, name: str, process: subprocess.Popen[bytes], **changes: object) -> TrainingRecord:
    birth = processes.process_birth(process.pid)
    assert birth is not None
    record = TrainingRecord(
        name=name,
        request=request(name=name),
        requested_at=1.0,
        attempt=1,
        pid=process.pid,
        process_birth=birth,
        started_at=1.0,
    ).model_copy(update=changes)
    record.write(runs / name)
    return record


def test_running_training_is_listed_despite_a_hundred_newer_runs(
    root: Path, tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    runs = tmp_path / "runs"
    write_record(runs, "live", sleeper)
    for number in range(120):
        folder = runs / f"newer{number}"
        folder.mkdir()
        (folder / "run.json").write_text("{}")
    trainings = Trainings(root, runs, tmp_path / "store")
    second = trainings.start(request(name="second"))
    trainings.update()
    assert (second.state, second.queue_position) == (State.WAITING, 1) and not trainings.children, (
        "a second one was started"
    )
    shown = TrainService(root, runs, tmp_path / "store").progress_view(None)
    assert shown.chosen == "live" and len(shown.choices) == 100 and shown.can_stop


def test_status_of_a_complete_run_without_artifact_says_so(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    trainings = Trainings(root, tmp_path / "runs", tmp_path / "store")
    assert "failed verification" in view.status(trainings.get("r"), CommandProgress(), "")
    (folder / "r.onnx").touch()
    assert "artifact and report are in" in view.status(trainings.get("r"), CommandProgress(), "")


def test_stop_works_when_the_clock_is_set_back(root: Path, tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """The stop seems to be requested an hour ahead, as after the clock was set back by an hour."""
    write_record(tmp_path / "runs", "r", sleeper, stop_requested_at=time.time() + 3600)
    trainings = Trainings(root, tmp_path / "runs", tmp_path / "store", grace=0.2)
    for _ in range(20):
        trainings.update()
        time.sleep(0.1)
    assert sleeper.wait(0) in (-signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL)


def test_training_that_ignores_signals_is_sent_each_signal_once(root: Path, tmp_path: Path) -> None:
    program = (
        "import signal, time\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, lambda n, _: print(n, flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    words = [sys.executable, "-P", "-c", program, *name_arguments(tmp_path, "r")]
    with subprocess.Popen(words, start_new_session=True, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        write_record(tmp_path / "runs", "r", process, stop_requested_at=time.time())  # type: ignore[arg-type]
        trainings = Trainings(root, tmp_path / "runs", tmp_path / "store", grace=0.3)

        def has_ended() -> bool:
            trainings.update()
            return process.poll() is not None

        wait_until(has_ended, "its end")
        assert process.returncode == -signal.SIGKILL
        assert process.stdout.read().split() == [str(int(signal.SIGINT)), str(int(signal.SIGTERM))]


def test_failed_training_explains_itself_in_one_line(make_trainings: Callable[..., Trainings], root: Path) -> None:
    trainings = make_trainings([*TINY, "fit.nonsense=1"])
    trainings.start(request())
    wait_for_state(trainings, "r", State.FAILED)
    line = trainings.error(trainings.get("r"))
    assert "unknown key 'fit.nonsense'" in line and "\n" not in line and "Traceback" not in line
    assert line.replace("'", "&#x27;") in view.status(trainings.get("r"), trainings.progress("r"), line)


# ── names from clients ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    """A root with one folder; folders outside of it must not be reached."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "fine").mkdir(parents=True)
    outside.mkdir()
    (tmp_path / "root-too").mkdir()
    (root / "out").symlink_to(outside)
    (root / "circle").symlink_to(root / "circle")
    (root / "file").write_text("no folder")
    return root


@pytest.mark.parametrize(
    "given",
    [
        "",
        "..",
        "../outside",
        "fine/../../outside",
        "/etc",
        "out",
        "out/.",
        "circle",
        "file",
        "gone",
        "../root-too",
        "a\0b",
        "x" * 5000,
    ],
)
def test_data_outside_of_the_root_is_refused(given: str, small_root: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not a folder below the Studio's data folder"):
        folder_below(small_root, given)
    trainings = Trainings(small_root, tmp_path / "runs", tmp_path / "store")
    for data in (given, str(tmp_path / "outside")):
        with pytest.raises(BadInput):
            trainings.start(request(data=data))
        with pytest.raises(BadInput):
            list(data_check.check(small_root, data, tmp_path / "scratch"))
    assert not (tmp_path / "runs").exists(), "a training was started"
    assert (
        folder_below(small_root, "fine") == small_root.resolve() / "fine"
        and folder_below(small_root, ".") == small_root.resolve()
    )


def test_foreign_record_starts_neither_its_command_nor_a_training_on_data_outside_the_root(
    small_root: Path, tmp_path: Path
) -> None:
    """Neither the command nor the data of a record from another machine is trusted."""
    marker = tmp_path / "marker"
    hostile = TrainingRecord(
        name="r", request=request(data="../outside"), requested_at=1.0, command=["touch", str(marker)], attempt=1
    )
    hostile.write(tmp_path / "runs" / "r")
    trainings = Trainings(small_root, tmp_path / "runs", tmp_path / "store")
    trainings.update()
    assert trainings.get("r").state is State.STOPPED
    with pytest.raises(BadInput, match="below the Studio's data folder"):
        trainings.resume("r")
    trainings.queue.add(hostile)  # as if the data had been moved after the request
    trainings.update()
    assert trainings.get("r").state is State.FAILED
    assert "below the Studio's data folder" in trainings.error(trainings.get("r"))
    assert not marker.exists()
    (tmp_path / "runs" / "r").rename(tmp_path / "runs" / "copy")
    assert read_record(tmp_path / "runs" / "copy") is None, "the record of another folder was accepted"
    (tmp_path / "runs" / "copy" / RECORD).write_text('{"name": "copy", "pid": "1; rm"}')
    assert read_record(tmp_path / "runs" / "copy") is None


@pytest.mark.parametrize(
    "name", ["../r", "/r", "..", ".", "-rf", "a/b", "a\\b", "a b", "é", "a\0", "x" * 90, "--out=elsewhere"]
)
def test_run_name_that_is_no_plain_folder_name_is_refused(name: str, root: Path, tmp_path: Path) -> None:
    trainings = Trainings(root, tmp_path / "runs", tmp_path / "store")
    with pytest.raises(UsageError, match="cannot name a run"):
        trainings.start(request(name=name))
    for method in (trainings.get, trainings.stop, trainings.resume, trainings.progress):
        with pytest.raises(InspectKDError):
            method(name)
    assert not (tmp_path / "runs").exists()


def test_report_is_read_from_its_run_only(tmp_path: Path) -> None:
    runs, secret = tmp_path / "runs", tmp_path / "secret.html"
    secret.write_text("secret")
    for name in ("linked", "r"):
        (runs / name).mkdir(parents=True)
        (runs / name / "run.json").write_text("{}")
    (runs / "linked" / "report.html").symlink_to(secret)
    (runs / "r" / "report.html").write_text('<script>1</script>"quoted"')
    (runs / "away").symlink_to(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    trainings = Trainings(tmp_path, runs, tmp_path / "store")
    with pytest.raises(BadInput, match="no report"):
        run_report.read_report(trainings.get("linked").folder)
    with pytest.raises(BadInput, match="no run"):
        trainings.get("away")
    assert {each.name for each in trainings.all()} == {"linked", "r"}
    frame = view.report("r", run_report.read_report(trainings.get("r").folder))
    assert (
        'sandbox=""' in frame and "<script" not in frame and "&lt;script&gt;1&lt;/script&gt;&quot;quoted&quot;" in frame
    )


def test_pictures_of_a_run_come_from_its_report_or_else_from_its_data(run: Path, root: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "runs" / "r")
    TrainingRecord(name="r", request=request(), requested_at=1.0).write(folder)
    service = TrainService(root, tmp_path / "runs", tmp_path / "store")
    assert texts.REPORT_PARTS in service.progress_view("r").pictures
    (folder / pictures_file.FILE_NAME).unlink()  # as in runs of earlier versions
    without_pictures_file = service.progress_view("r")
    assert (
        texts.FIRST_PARTS.format(folder="sample") in without_pictures_file.pictures and without_pictures_file.can_open
    )
    assert "<h1>" in service.report("r")


def test_pictures_of_a_data_set_are_small_and_made_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, start = folder_below(root, "sample"), threading.Barrier(4)

    def show(_: int) -> str:
        start.wait()
        return service_module._sound_parts(folder, name="sample")

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(show, range(4)))
    assert "<img" in results[0] and all(each is results[0] for each in results)
    (tmp_path / "empty").mkdir()
    assert service_module._sound_parts(tmp_path / "empty", name="empty") == "", "pictures of an empty folder"
    for limit in ("MAX_PICTURE_PIXELS", "MAX_PICTURE_BYTES"):
        with monkeypatch.context() as limited:
            limited.setattr(data_folders_module, limit, 10)
            assert first_sound_parts(folder) == []


@pytest.mark.parametrize("name", ["my run", "_old", "Gehäuse", "a" * 90])
def test_run_with_a_refused_name_is_not_listed(name: str, tmp_path: Path) -> None:
    for each in ("fine", name):
        (tmp_path / "runs" / each).mkdir(parents=True)
        (tmp_path / "runs" / each / "run.json").write_text("{}")
    shown = TrainService(tmp_path, tmp_path / "runs", tmp_path / "store").progress_view(None)
    assert shown.chosen == "fine" and [value for _, value in shown.choices] == ["fine"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("report.html", "<![<![x"),
        (pictures_file.FILE_NAME, "[" * 100_000 + "\n{}\n"),
        ("training.log", '{"a":' + "[" * 100_000 + "\n"),
        ("metrics.jsonl", '{"a":' + "[" * 100_000 + "\n"),
        ("training.json", "[" * 100_000),
        ("training.log", None),
    ],
)
def test_run_with_a_broken_file_is_still_listed(file: str, content: str | None, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "r"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    if content is None:
        (run / file).mkdir()
    else:
        (run / file).write_text(content)
    assert TrainService(tmp_path, tmp_path / "runs", tmp_path / "store").progress_view(None).chosen == "r"


def test_loading_tags_of_a_report_are_disabled() -> None:
    """Neither the frame's sandbox nor a content security policy stops `<link rel=preconnect>`."""
    tags = (
        "<LINK rel=preconnect href=//x>",
        "<li<link\n rel=preconnect>",
        "<meta http-equiv=refresh>",
        "<base href=//x>",
    )
    frame = view.report("r", "".join(tags) + '<iframe srcdoc="&lt;link rel=preconnect&gt;"></iframe><p>fine</p>')
    page = html.unescape(frame.split('srcdoc="')[1])
    assert not re.search(r"<(link|meta|base|iframe)", page, re.IGNORECASE)
    assert "<!LINK rel=preconnect" in page and "<p>fine</p>" in page


def test_record_is_stored_under_its_former_json_keys(tmp_path: Path) -> None:
    TrainingRecord(name="r", request=request(), requested_at=1.0, process_birth="b", started_at=2.0).write(
        tmp_path / "r"
    )
    stored = json.loads((tmp_path / "r" / RECORD).read_text())
    assert (stored["order"]["data"], stored["asked"], stored["born"], stored["began"]) == ("sample", 1.0, "b", 2.0)
    record = read_record(tmp_path / "r")
    assert record is not None and record.request == request() and record.requested_at == 1.0


@pytest.mark.parametrize("wrong", [{"seed": 1.5}, {"seed": "1"}, {"quick": "yes"}, {"name": 5}])
def test_request_of_the_wrong_type_writes_no_record(wrong: dict[str, object], root: Path, tmp_path: Path) -> None:
    trainings = Trainings(root, tmp_path / "runs", tmp_path / "store", max_running=0)
    with pytest.raises(UsageError, match=f"^{next(iter(wrong))}: "):
        trainings.start(request(**wrong))
    assert not (tmp_path / "runs").exists()


def test_queue_is_limited(root: Path, tmp_path: Path) -> None:
    trainings = Trainings(root, tmp_path / "runs", tmp_path / "store", max_running=0)
    for number in range(MAX_WAITING):
        record = TrainingRecord(name=f"r{number}", request=request(), requested_at=1.0, command=[])
        record.write(tmp_path / "runs" / f"r{number}")
        trainings.queue.add(record)
    with pytest.raises(UsageError, match="32 trainings wait already: stop one"):
        trainings.start(request())
    trainings.stop("r0")
    with pytest.raises(UsageError, match="nothing to resume"):
        trainings.resume("r1")
    assert trainings.start(request()).state is State.WAITING


def test_opening_a_report_shows_a_message_first_and_hides_it_on_failure(tmp_path: Path) -> None:
    need("gradio", find_spec("gradio") is not None)
    import gradio as gr

    from inspect_kd.apps.studio.train.tab import open_report

    run = tmp_path / "runs" / "line3"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    service = TrainService(tmp_path, tmp_path / "runs", tmp_path / "store")
    updates = open_report(service, "line3")
    column, page = next(updates)
    assert column["visible"] and texts.OPENING in page
    column, page = next(updates)
    assert not column["visible"] and page == ""
    with pytest.raises(gr.Error, match="has no report yet"):
        next(updates)
    (run / "report.html").write_text("<h1>line3</h1>")
    _, (column, page) = open_report(service, "line3")
    assert column["visible"] and "&lt;h1&gt;line3" in page


def test_request_becomes_a_train_command(root: Path, tmp_path: Path) -> None:
    words = build_command(request(quick=True, seed=7), root, tmp_path, "r", resume=True)
    assert words[1:5] == ["-P", "-m", "inspect_kd", "train"] and words[-1] == "--resume"
    assert {"fit.steps=62", "fit.seed=7", "fit.evaluate_every=12"} <= set(words)
    assert "--set" not in build_command(request(), root, tmp_path, "r", resume=False), (
        "a normal training changes the recipe"
    )
    for wrong in ({"recipe": "../../etc/passwd.yaml"}, {"recipe": "nobody"}, {"seed": -1}, {"seed": 2**40}):
        with pytest.raises(UsageError):
            build_command(request(**wrong), root, tmp_path, "r", resume=False)


# ── display ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_data_folders_outside_of_the_root_are_not_listed(root: Path, parts: Path, tmp_path: Path) -> None:
    assert data_folders(root) == ["sample", "sample/board", "sample/bottle", "sample/fabric", "sample/metal"]
    (tmp_path / "mine").symlink_to(parts)
    assert data_folders(tmp_path) == [], "a link out of the root is listed"
    pictures = first_sound_parts(parts, max_pictures=5)
    assert [name.split(":")[0] for name, _ in pictures] == ["board", "bottle", "fabric", "metal", "board"]
    assert all(uri.startswith("data:image/webp;base64,") for _, uri in pictures)


def test_data_check_runs_in_its_own_process(root: Path, parts: Path, tmp_path: Path) -> None:
    *_, sample_check = data_check.check(root, "sample", tmp_path)
    assert (
        sample_check.over
        and sample_check.is_trainable
        and sample_check.counts["board"]["test"] == 8
        and sample_check.defective["board"] == 5
    )
    assert "Nothing wrong was found" in view.check_result(sample_check)
    (tmp_path / "bad" / "good").mkdir(parents=True)
    for image in (parts / "board" / "train" / "good").iterdir():
        (tmp_path / "bad" / "good" / image.name).write_bytes(image.read_bytes())
    (tmp_path / "bad" / "good" / "<b>.png").write_bytes(b"")
    *_, bad_check = data_check.check(tmp_path, "bad", tmp_path)
    assert not bad_check.is_trainable and any("is empty" in found.text for found in bad_check.findings)
    assert str(tmp_path) not in json.dumps([found.text for found in bad_check.findings]), (
        "a folder of the server is shown"
    )
    assert "&lt;b&gt;" in view.check_result(bad_check) and "<b>.png" not in view.check_result(bad_check)
    (tmp_path / "none").mkdir()
    *_, empty_check = data_check.check(tmp_path, "none", tmp_path)
    assert (
        not empty_check.is_trainable
        and not empty_check.counts
        and "no layout recognised" in empty_check.findings[0].text
    )
    assert not list(tmp_path.glob("tmp*")), "temporary files are left"


def test_log_of_several_attempts_gives_one_curve() -> None:
    progress = CommandProgress()
    lines = [
        '{"attempt": 1}',
        '{"phase": "train", "done": 0, "total": 40, "seconds": 0.0}',
        *(
            f'{{"phase": "train", "done": {n}, "total": 40, "seconds": {n}, "seconds_left": 1, "loss": {n}}}'
            for n in (2, 4, 6)
        ),
        "Traceback (most recent call last):",
        '  File "x.py", line 1',
        "RuntimeError: out of everything",
        "{broken",
        '{"phase": "train", "done": NaN, "loss": Infinity}',
        "[1, 2]",
    ]
    for line in lines[:-3]:
        parse_line(progress, line)
    assert progress.error == "RuntimeError: out of everything"
    for line in lines[-3:]:
        parse_line(progress, line)
    for line in (
        '{"attempt": 2}',
        '{"phase": "train", "done": 0, "total": 40, "seconds": 0.0}',
        *(
            f'{{"phase": "train", "done": {n}, "total": 40, "seconds": {n - 4}, "seconds_left": 1, "loss": 9}}'
            for n in (5, 10)
        ),
    ):
        parse_line(progress, line)
    assert progress.losses["train"] == [(2, 2), (4, 4), (5, 9), (10, 9)]
    assert progress.seconds_left == 30, "not computed from the steps of this attempt alone"
    assert progress.error == "" and progress.attempt == 2


def test_recipes_list_the_default_first_and_teachers_last() -> None:
    names = [name for name, _ in list_recipes()]
    assert names[0] == "omni_ad" and names.index("memory") > names.index("ras_paper")
    assert default_recipe() in ("omni_ad", "embedded")


def test_train_service_needs_no_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from inspect_kd.apps.studio.train.service import TrainService; print(TrainService.__name__)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.stdout.strip() == "TrainService", answer.stderr


# ── the tab itself ───────────────────────────────────────────────────────────────────────────────────────────────────────

STUDIO = """
import sys
from importlib.util import find_spec
from pathlib import Path
import gradio as gr
from inspect_kd.apps.studio.train.tab import build
root, work, port, *changes = sys.argv[1:]
with gr.Blocks(title="Studio", analytics_enabled=False) as studio:
    with gr.Tab("Train"):
        build(Path(root), Path(work) / "runs", Path(work) / "store", changes=changes)
assert "torch" not in sys.modules
studio.launch(server_name="127.0.0.1", server_port=int(port), ssr_mode=False, quiet=True, footer_links=[])
"""
SHORT_TRAINING = [*TINY, "fit.steps=80"]
"""Settings of a training that lasts long enough to be stopped."""


@pytest.fixture(scope="module")
def studio(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Studio that has only the Train tab."""
    need("gradio", find_spec("gradio") is not None)
    work = tmp_path_factory.mktemp("studio")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-c", STUDIO, str(parts.parent), str(work), str(port), *SHORT_TRAINING]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_until(lambda: process.poll() is not None or _is_listening(port), "the Studio's first answer")
        yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, "the Studio has ended"
        assert "Traceback" not in (work / "log").read_text()
    finally:
        process.terminate()
        process.wait()
        trainings = Trainings(parts.parent, work / "runs", work / "store", grace=1.0)
        for each in trainings.all():
            if each.can_stop:
                trainings.stop(each.name)
                wait_for_state(trainings, each.name, State.STOPPED, State.FINISHED)


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_training_is_started_stopped_resumed_and_reported_in_a_browser(studio: str, tmp_path: Path) -> None:
    wait = PATIENCE_S * 1000
    with chromium() as browser:
        from playwright.sync_api import expect

        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        foreign: list[str] = []
        page.on("request", lambda request: foreign.append(request.url) if _is_foreign(request.url, studio) else None)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(studio, timeout=wait)
        status = page.locator("#train-status")
        expect(status).to_contain_text("No run yet", timeout=wait)
        for button in ("start", "check", "stop", "resume", "open"):
            expect(page.locator(f"#train-{button}")).to_be_disabled()

        page.locator("#train-folder input").fill("../outside")
        page.locator("#train-folder input").press("Enter")
        page.locator("#train-start").click()
        expect(page.get_by_text("not a folder below the Studio's data folder").first).to_be_visible(timeout=wait)
        page.locator("#train-folder input").fill("sample")
        page.locator("#train-folder input").press("Enter")
        page.locator("#train-check").click()
        expect(page.locator("#train-checked")).to_contain_text("Nothing wrong was found", timeout=wait)
        page.locator("#train-name input, #train-name textarea").first.fill("line3")
        page.locator("#train-start").click()

        expect(status.locator(".ikd-badge")).to_contain_text("running", timeout=wait)
        expect(page.locator("#train-stop")).to_be_enabled()
        expect(page.locator("#train-pictures img").first).to_be_visible(timeout=wait)
        expect(page.locator("#train-curves polyline").first).to_be_visible(timeout=wait)
        page.locator("#train-stop").click()
        expect(status.locator(".ikd-badge")).to_contain_text("stopped", timeout=wait)
        expect(page.locator("#train-open")).to_be_disabled()

        page.locator("#train-resume").click()
        expect(status.locator(".ikd-badge")).to_contain_text("running", timeout=wait)
        page.reload()
        expect(status.locator(".ikd-badge")).to_contain_text("running", timeout=wait)
        page.locator("#train-log button").first.click()
        expect(page.locator("#train-log textarea")).to_have_value(re.compile("resuming at step"), timeout=wait)
        expect(status.locator(".ikd-badge")).to_contain_text("finished", timeout=wait)

        page.locator("#train-open").click()
        frame = page.frame_locator("#train-page iframe")
        expect(frame.locator("h1")).to_have_text("line3", timeout=wait)
        expect(frame.get_by_text("What the thresholds promise")).to_be_attached()
        page.screenshot(path=tmp_path / "train.png")
        page.locator("#train-close").click()
        expect(page.locator("#train-page iframe")).to_have_count(0)
        assert not errors and not foreign


def _is_foreign(url: str, studio: str) -> bool:
    return not url.startswith((studio, "data:", "blob:", "about:"))


def test_training_is_started_and_stopped_through_named_endpoints(studio: str) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(studio, verbose=False)
    try:
        assert client.predict(api_name="/train_folders")[0] == "sample"
        checked = client.predict("sample/board", api_name="/train_check")
        assert checked["sound"] and checked["counts"]["board"]["test"] == 8
        for data in ("..", "/etc", "sample/../.."):
            for call in ("/train_check", "/train_start"):
                with pytest.raises(AppError, match="not a folder below"):
                    client.predict(data, api_name=call)
        started = client.predict("sample/board", "embedded", "by_name", True, 3, api_name="/train_start")
        assert started["name"] == "by_name" and started["state"] in ("running", "waiting")
        client.predict("by_name", api_name="/train_stop")
        wait_until(lambda: client.predict("by_name", api_name="/train_state")["state"] == "stopped", "a stop by name")
        with pytest.raises(AppError, match="cannot name a run"):
            client.predict("../by_name", api_name="/train_state")
        named = client.view_api(return_format="dict")["named_endpoints"]
        assert set(named) == {f"/train_{word}" for word in ("folders", "check", "start", "state", "stop", "resume")}
        assert all(each.get("description") for each in named.values())
    finally:
        client.close()
