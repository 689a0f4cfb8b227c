"""The comparison: real peers on real weights, failures that are told, nothing done twice, a page that says it all."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from inspect_kd import weights
from inspect_kd.bench import cost, page, peers, runner
from inspect_kd.bench.entries import MEMORY, PEERS, SIZE, Entry, entries
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet, open_dataset
from inspect_kd.errors import UsageError
from inspect_kd.export.options import RuntimeOptions
from inspect_kd.export.to_onnx import open_session
from inspect_kd.metrics import METRICS
from inspect_kd.registry import load
from inspect_kd.train.run import environment
from inspect_kd.types import NoProgress
from tests.tiny import TINY

# anomalib and Lightning warn of each other's ways.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def metal(parts: Path) -> DataSet:
    return open_dataset(parts).only("metal")


class Small(nn.Module):
    """From bytes to heatmap and score by one convolution whose cost can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)

    def forward(self, images_NHW3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        heat = self.conv(images_NHW3.permute(0, 3, 1, 2).float()).mean(dim=1, keepdim=True)
        return heat, heat.flatten(1).amax(dim=1)


def test_an_unknown_peer_is_told_which_there_are() -> None:
    with pytest.raises(UsageError, match="patchcore"):
        entries([], ["patchcoer"])
    assert set(entries(["omni_ad"], ["memory", "stfpm"])) == {"omni_ad", "memory", "stfpm"}


def test_cost_counts_what_a_person_counts() -> None:
    assert cost.gflop(Small(), 64) == pytest.approx(2 * 64 * 64 * 3 * 3 * 3 * 4 / 1e9)


def test_the_clock_says_when_a_file_takes_one_image_only(tmp_path: Path) -> None:
    cost.to_file(Small(), tmp_path / "any.onnx", 64)
    cost.to_file(Small(), tmp_path / "one.onnx", 64, dynamic=False)
    told, failures = cost.clock({name: tmp_path / f"{name}.onnx" for name in ("any", "one")}, rounds=2)
    assert not failures
    assert all(row["cpu_ms"] > 0 and row["p99_ms"] >= row["p50_ms"] > 0 for row in told.values())
    assert "batched_cpu_ms" in told["any"] and "batched_cpu_ms" not in told["one"]
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    told, failures = cost.clock({name: tmp_path / f"{name}.onnx" for name in ("any", "broken")}, rounds=1)
    assert set(told) == {"any"} and list(failures) == ["broken"] and "BadInput" in failures["broken"]
    grown = cost.peak_memory(tmp_path / "any.onnx")
    assert grown is not None and grown > 1


@pytest.fixture
def own_weights(real_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(real_weights))
    return real_weights


@pytest.mark.parametrize("name", ["patchcore", "padim", "stfpm", "fastflow", "supersimplenet"])
def test_a_peer_gets_our_weights_in_its_own_network(name: str, own_weights: Path) -> None:
    entry = PEERS[name]
    module = peers.build(entry)
    found = weights.find_local(str(entry.encoder))
    assert found is not None
    stem = weights.load_state(found.path)["conv_stem.weight"]
    held = {key: value for key, value in module.state_dict().items() if key.endswith("conv_stem.weight")}
    frozen = {key: value for key, value in held.items() if "student" not in key}
    assert frozen and all(torch.equal(value, stem) for value in frozen.values())
    assert all(not torch.equal(value, stem) for key, value in held.items() if "student" in key)


def test_a_peer_is_trained_measured_and_exported(own_weights: Path, metal: DataSet, tmp_path: Path) -> None:
    told = peers.run_entry(PEERS["padim"], metal, tmp_path, 0.1, NoProgress())
    assert "failure" not in told and set(told["metrics"]["metal"]) == set(METRICS)
    assert told["metrics"]["metal"]["image_auroc"] > 0.5
    session = open_session((tmp_path / "model.onnx").read_bytes(), "padim", RuntimeOptions(allow_cpu=True))
    image = np.random.default_rng(0).integers(0, 255, (1, SIZE, SIZE, 3), dtype=np.uint8)
    heatmap, score = session.run(None, {session.get_inputs()[0].name: image})
    assert heatmap.shape == (1, 1, SIZE, SIZE) and score.shape == (1,) and np.isfinite(heatmap).all()


def test_the_memory_knows_what_it_has_seen(own_weights: Path, metal: DataSet, tmp_path: Path) -> None:
    told = load("bench", "memory").run_entry(MEMORY["memory"], metal, tmp_path, 0, NoProgress())
    assert told["metrics"]["metal"]["image_auroc"] > 0.9 and (tmp_path / "model.onnx").is_file()


def test_a_failure_is_a_result_and_the_others_go_on(metal: DataSet, tmp_path: Path) -> None:
    chosen = {name: Entry(name=name, maker="peers", model=name) for name in ("NoSuchModel", "NorThis")}
    results = runner.run_benchmark({"metal": metal}, chosen, tmp_path, 0.1, NoProgress())
    assert all(name in results["metal"][name]["failure"] for name in chosen)
    # Left as it is where that is wanted: the file is not even written again.
    files = [tmp_path / "metal" / name / runner.RESULT for name in chosen]
    before = [file.stat().st_mtime_ns for file in files]
    assert runner.run_benchmark({"metal": metal}, chosen, tmp_path, 0.1, NoProgress(), try_again=False) == results
    assert [file.stat().st_mtime_ns for file in files] == before


def test_a_peer_may_train_as_long_as_the_slowest_of_ours_took(metal: DataSet, tmp_path: Path) -> None:
    ours = {name: Entry(name=name, maker="ours", model=name) for name in ("omni_ad", "embedded", "ras")}
    took = {"omni_ad": {"metrics": {}, "train_seconds": 61}, "embedded": {"metrics": {}, "train_seconds": 9}}
    took["ras"] = {"failure": "killed", "train_seconds": 900}
    peer = Entry(name="peer", maker="peers", model="NoSuchModel")
    results = runner.run_benchmark(
        {"metal": metal}, {**ours, "peer": peer}, tmp_path, None, NoProgress(), standing={"metal": took}
    )
    # What stands is not done again, and says what the peer is granted.
    assert {key: results["metal"][key] for key in ours} == took and not (tmp_path / "metal" / "ras").exists()
    assert (tmp_path / "metal" / "peer" / runner.WORK).read_text() == runner.identity(peer, metal, 2)
    assert runner.as_long_as_ours({}, {}) == runner.WITHOUT_OURS


def test_a_result_is_of_its_data_entry_and_minutes(metal: DataSet, parts: Path, tmp_path: Path) -> None:
    entry, board = Entry(name="x", maker="peers", model="Padim"), open_dataset(parts).only("board")
    work = runner.identity(entry, metal, 1)
    assert work == runner.identity(entry, metal, 1)
    others = [(replace(entry, model="Stfpm"), metal, 1), (entry, board, 1), (entry, metal, 2)]
    assert work not in {runner.identity(*other) for other in others}
    folder = tmp_path / "x"
    runner._begin(folder, work)
    (folder / "checkpoint").touch()
    assert not runner._finished(folder, work)
    (folder / runner.RESULT).write_text('{"metrics": {}}')
    assert runner._finished(folder, work) and not runner._finished(folder, "other")
    (folder / runner.RESULT).write_text('{"failure": "no hub today"}')
    assert not runner._finished(folder, work) and runner._finished(folder, work, or_failed=True)
    runner._begin(folder, work)
    assert (folder / "checkpoint").exists()  # the same work goes on
    runner._begin(folder, "other")
    assert not (folder / "checkpoint").exists()


def die(*_: Any) -> None:
    os._exit(7)


def test_a_peer_that_takes_its_process_with_it_is_told(
    metal: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_work", die)
    told = runner.run_benchmark({"metal": metal}, {"x": Entry(name="x", maker="peers")}, tmp_path, 1, NoProgress())
    assert "exit status 7" in told["metal"]["x"]["failure"]


def test_the_page_shows_everybody(tmp_path: Path) -> None:
    chosen = {
        "a": Entry(name="ours <a>", maker="ours"),
        "b": Entry(name="peer", maker="peers", light=True),
        "c": Entry(name="broken", maker="peers"),
    }

    def result(value: float) -> dict[str, Any]:
        metrics: Mapping[str, float] = dict.fromkeys(METRICS, value)
        return {
            "metrics": {"x": metrics, "y;=1+1": metrics, "mean": metrics},
            "train_seconds": 60.0,
            "gflop": 1.0,
            "note": "",
        }

    results = {"unified": {"a": result(0.5), "b": result(0.9), "c": {"failure": "ValueError: no | such thing"}}}
    cost_of = {"cpu_ms": 10.0, "p50_ms": 10.0, "p99_ms": 11.0, "file_mb": 1.0, "memory_mb": 2.0, "peak_gflops": 200.0}
    costs = {"a": cost_of, "b": cost_of | {"cpu_ms": 40.0, "batched_cpu_ms": 30.0}}
    written = page.write(
        tmp_path, page.Comparison(entries=chosen, results=results, costs=costs, environment=environment("cpu"))
    )
    html, told = written.read_text(), (tmp_path / "bench.md").read_text()
    assert "ours &lt;a&gt;" in html and "<a>" not in html.replace("ours &lt;a&gt;", "")
    assert told.index("| peer |") < told.index("| ours <a> |") < told.index("| broken |")  # the best first
    assert "no ¦ such thing" in told and "| 0.25 |" in told and "| 50% |" in told
    rows = list(csv.DictReader((tmp_path / "bench.csv").open()))
    assert {row["category"] for row in rows} == {"x", "y;'=1+1", "mean", ""}
    assert len(rows) == 7 and {row["entry"] for row in rows} == {"ours <a>", "peer", "broken"}
    assert json.loads((tmp_path / "bench.json").read_text())["results"] == results


def test_the_command_compares_and_is_not_done_twice(parts: Path, tmp_path: Path) -> None:
    def call(recipe: Path) -> subprocess.CompletedProcess[str]:
        words = ["bench", "--data", str(parts), "--model", str(recipe), "--against", "none"]
        command = [sys.executable, "-m", "inspect_kd", *words, "--out", str(tmp_path / "out")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(load_recipe("embedded", TINY).to_yaml())
    refused = call(recipe)
    assert refused.returncode == 2 and "256x256" in refused.stderr
    quick = [*TINY, "data.size=256", "fit.steps=4", "fit.evaluate_every=2"]
    recipe.write_text(load_recipe("embedded", quick).to_yaml())
    first = call(recipe)
    assert first.returncode == 0, first.stderr
    assert {"bench.html", "bench.md", "bench.csv", "bench.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
    manifest = tmp_path / "out" / "unified" / "tiny" / "run" / "run.json"
    written = manifest.stat().st_mtime_ns
    assert call(recipe).returncode == 0 and manifest.stat().st_mtime_ns == written
    rows = list(csv.DictReader((tmp_path / "out" / "bench.csv").open()))
    assert [row["category"] for row in rows] == ["board", "bottle", "fabric", "metal", "mean"]
    assert all(float(row["cpu_ms"]) > 0 and float(row["memory_mb"]) > 0 for row in rows)
