"""Trainings on machines whose environment is unusual: variables of other launchers, no git."""

from __future__ import annotations

import pytest

from inspect_kd.training.run import environment, is_started_by_rank_zero


def test_local_rank_of_another_launcher_makes_no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first process of a training hands over the run's folder."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("INSPECT_KD_RUN_FOLDER", raising=False)
    assert not is_started_by_rank_zero()
    monkeypatch.setenv("INSPECT_KD_RUN_FOLDER", "runs/r")
    assert is_started_by_rank_zero()


def test_environment_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment("cpu")["commit"] is None
