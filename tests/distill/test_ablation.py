"""The ablation: all arms of a seed start from one fit, finished arms are not trained again, and a page shows the results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from inspect_kd import zoo
from inspect_kd.bench import ablate
from inspect_kd.datasets import open_dataset
from inspect_kd.errors import UsageError
from inspect_kd.training.run import environment
from inspect_kd.types import NoProgress
from tests.distill.builders import MEMORY_RECIPE

Results = dict[str, list[dict[str, Any]]]
ARMS = [
    replace(arm, changes=tuple(change.replace("1500", "3") for change in arm.changes))
    for arm in ablate.list_arms([], None)
]
"""The arms `fit` and `drawn`; `drawn` supervises for 3 steps instead of 1500."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the ablation, with recipes of a student and a teacher."""
    folder = tmp_path_factory.mktemp("ablation")
    recipe = yaml.safe_load(zoo.find("models", "embedded").read_text())
    recipe["student"] |= {"dims": [24, 16, 16], "neck": 16, "bottleneck": 1, "heads": 2, "head_width": 8}
    recipe["student"]["compare"] = [{"strides": [16], "prototypes": 16}]
    recipe |= {"name": "tiny", "data": {"size": 64}, "fit": {"steps": 6, "batch": 4, "evaluate_every": 3}}
    recipe["distill"] = {"variants": 2, "max_samples": 12, "batch": 4}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "tiny_memory.yaml").write_text(json.dumps(MEMORY_RECIPE))
    return folder


def run_ablation(home: Path, parts: Path, arms: list[ablate.Arm] = ARMS) -> Results:
    return ablate.ablate(str(home / "tiny.yaml"), open_dataset(parts), arms, [0], home / "out", NoProgress())


@pytest.fixture(scope="module")
def results(home: Path, parts: Path) -> Results:
    return run_ablation(home, parts)


def test_arms_differ_in_their_stages(results: Results) -> None:
    assert set(results) == {"fit", "drawn"}
    fit, drawn = results["fit"][0], results["drawn"][0]
    assert "stages" not in fit and drawn["stages"] == {"supervise": 3}
    assert fit["metrics"] != drawn["metrics"]


def test_finished_arms_are_not_trained_again(home: Path, parts: Path, results: Results) -> None:
    times = {path: path.stat().st_mtime_ns for path in (home / "out").rglob("result.json")}
    assert len(times) == 2
    assert run_ablation(home, parts) == results
    assert all(path.stat().st_mtime_ns == mtime_ns for path, mtime_ns in times.items())


@pytest.mark.parametrize(("key", "other"), [("real", "other folder"), ("teachers", {"memory": "other teacher"})])
def test_arm_with_other_parts_or_teachers_is_trained_again(
    key: str, other: object, home: Path, parts: Path, results: Results
) -> None:
    path, drawn = home / "out" / "seed0" / "drawn" / "result.json", results["drawn"][0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: other}))
    again = run_ablation(home, parts)["drawn"][0]
    assert again[key] == drawn[key] and again["metrics"] == drawn["metrics"]


def test_arm_with_a_teacher_shares_samples_with_the_arm_before(home: Path, parts: Path, results: Results) -> None:
    with_memory = ablate.Arm(
        name="memory", changes=ablate.teacher_changes([str(home / "tiny_memory.yaml")]), explanation="with a teacher"
    )
    short_arm = replace(
        with_memory, changes=tuple(change.replace("1500", "3").replace("600", "3") for change in with_memory.changes)
    )
    (home / "out" / "seed0" / "drawn" / "result.json").unlink()
    shared = run_ablation(home, parts, [*ARMS, short_arm])
    assert shared["memory"][0]["stages"] == {"supervise": 3, "refine": 3}
    assert shared["drawn"][0]["metrics"] == results["drawn"][0]["metrics"]
    assert len(list((home / "out").glob("*-tiny_memory-*/run.json"))) == 1


def test_fit_with_other_settings_is_refused(home: Path, parts: Path, results: Results) -> None:
    recipe = yaml.safe_load((home / "tiny.yaml").read_text())
    other = home / "other.yaml"
    other.write_text(yaml.safe_dump(recipe | {"fit": recipe["fit"] | {"steps": 5}}))
    with pytest.raises(UsageError, match="was fitted with other settings"):
        ablate.ablate(str(other), open_dataset(parts), ARMS, [0], home / "out", NoProgress())


def test_page_shows_the_gain_over_the_fit(results: Results, tmp_path: Path) -> None:
    page = ablate.write(tmp_path, ARMS, results, environment("cpu")).read_text()
    fit, drawn = (results[name][0]["metrics"]["mean"]["pixel_ap"] for name in ("fit", "drawn"))
    row = next(line for line in page.splitlines() if line.startswith(f"| drawn | {ARMS[1].explanation} |"))
    assert f" / {drawn - fit:+.3f} / " in row


def test_page_shows_the_cost_of_teachers(results: Results, tmp_path: Path) -> None:
    cost = {"looked_at": 12, "images": 12, "images_a_second": 3.21, "cache_mb": 4.4, "licences": {}}
    first = results["drawn"][0] | {"taught_by": {"memory": cost}}
    second = first | {"seed": 1, "taught_by": {"memory": cost | {"looked_at": 0}}}
    page = ablate.write(tmp_path, ARMS, results | {"drawn": [first, second]}, environment("cpu")).read_text()
    assert "| memory | 12 | 3.2 | 4 | 1 of 2 |" in page


def test_arms_depend_on_teachers_and_unlabelled_parts() -> None:
    assert [arm.name for arm in ablate.list_arms([], None)] == ["fit", "drawn"]
    names = [arm.name for arm in ablate.list_arms(["a", "b"], "line/")]
    assert {"a", "b", "a, at its word", "all teachers", "contrast", "unlabelled"} <= set(names)
