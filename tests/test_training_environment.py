"""Trainings on machines whose environment is unusual: variables of other launchers, no git."""

from __future__ import annotations

import pytest

from inspect_kd.training.run import environment, is_started_by_rank_zero


def test_local_rank_of_another_launcher_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper process also gets the run's folder from the first process."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("INSPECT_KD_RUN_FOLDER", raising=False)
    assert not is_started_by_rank_zero()
    monkeypatch.setenv("INSPECT_KD_RUN_FOLDER", "runs/r")
    assert is_started_by_rank_zero()


def test_environment_without_git_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment("cpu")["commit"] is None
