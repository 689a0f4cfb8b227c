"""Runs with planted links, pipes and devices: the Studio neither reads nor writes through them."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from inspect_kd.apps.studio.train import log as training_log
from inspect_kd.apps.studio.train import run_report
from inspect_kd.apps.studio.train.log import LogReader, read_metrics
from inspect_kd.apps.studio.train.record import LOG, RECORD, State, TrainingRecord, TrainRequest, read_record
from inspect_kd.apps.studio.train.trainings import Trainings
from inspect_kd.errors import BadInput
from inspect_kd.report import pictures_file
from tests.tiny import TINY


def plant_waiting_run(runs: Path, name: str) -> Path:
    """Write the record of a training that the next update would start."""
    TrainingRecord(name=name, request=TrainRequest(data="sample", recipe="embedded"), requested_at=1.0).write(
        runs / name
    )
    return runs / name


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to])
def test_training_whose_log_is_a_link_is_not_started(plant: object, parts: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    folder = plant_waiting_run(tmp_path / "runs", "r")
    plant(folder / LOG, notes)  # type: ignore[operator]
    trainings = Trainings(parts.parent, tmp_path / "runs", changes=TINY)
    try:
        trainings.update()
        training = trainings.get("r")
        assert not trainings.children, "a process was started"
    finally:
        for child in trainings.children.values():
            child.kill()
            child.wait()
    assert notes.read_text() == "mine"
    assert training.state is State.FAILED and "in the place of the log" in trainings.error(training)


def test_log_is_not_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / LOG).symlink_to("secret")
    reader = LogReader(tmp_path / LOG)
    assert not reader.read().lines
    (tmp_path / LOG).unlink()
    (tmp_path / LOG).symlink_to("/dev/zero")
    assert not reader.read().lines and not reader.partial_line


def test_log_without_line_ends_is_not_kept_in_memory(tmp_path: Path) -> None:
    with (tmp_path / LOG).open("wb") as file:
        file.truncate(3 * training_log.MAX_READ_BYTES)
    reader = LogReader(tmp_path / LOG)
    for _ in range(3):
        reader.read()
    assert len(reader.partial_line) <= training_log.MAX_LINE_BYTES


@pytest.mark.parametrize("target", ["/dev/zero", "../elsewhere.json"])
def test_record_is_not_read_through_a_link(target: str, tmp_path: Path) -> None:
    folder = plant_waiting_run(tmp_path / "runs", "r")
    (folder / RECORD).rename(tmp_path / "runs" / "elsewhere.json")
    (folder / RECORD).symlink_to(target)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), hard))  # stops a read that would never end
    try:
        assert read_record(folder) is None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_pipes_do_not_block_readers(tmp_path: Path) -> None:
    for name in (RECORD, LOG, "metrics.jsonl", "report.html", pictures_file.FILE_NAME):
        os.mkfifo(tmp_path / name)
    assert read_record(tmp_path) is None
    assert not LogReader(tmp_path / LOG).read().lines
    assert read_metrics(tmp_path / "metrics.jsonl") == ({}, [])
    assert pictures_file.read_pictures(tmp_path, 6) == []
    with pytest.raises(BadInput, match="no report yet"):
        run_report.read_report(tmp_path)
