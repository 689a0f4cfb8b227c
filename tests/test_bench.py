"""Comparison with peers: real peers on real weights, failures as results, reuse of results, and the pages."""

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
from inspect_kd.bench.entries import MEMORY, PEERS, SIZE, Entry, select_entries
from inspect_kd.config import load_recipe
from inspect_kd.datasets import DataSet, open_dataset
from inspect_kd.errors import UsageError
from inspect_kd.export.options import RuntimeOptions
from inspect_kd.export.to_onnx import open_session
from inspect_kd.metrics import METRICS
from inspect_kd.registry import load
from inspect_kd.training.run import environment
from inspect_kd.types import NoProgress
from tests.tiny import TINY

# anomalib and Lightning warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def metal(parts: Path) -> DataSet:
    return open_dataset(parts).only("metal")


class OneConvolution(nn.Module):
    """Computes heatmap and score by one convolution, whose cost can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)

    def forward(self, images_NHW3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        heat = self.conv(images_NHW3.permute(0, 3, 1, 2).float()).mean(dim=1, keepdim=True)
        return heat, heat.flatten(1).amax(dim=1)


def test_an_unknown_peer_is_refused_with_the_known_names() -> None:
    with pytest.raises(UsageError, match="patchcore"):
        select_entries([], ["patchcoer"])
    assert set(select_entries(["omni_ad"], ["memory", "stfpm"])) == {"omni_ad", "memory", "stfpm"}


def test_gflop_of_a_convolution_is_right() -> None:
    assert cost.count_gflop(OneConvolution(), 64) == pytest.approx(2 * 64 * 64 * 3 * 3 * 3 * 4 / 1e9)


@pytest.fixture
def model_files(tmp_path: Path) -> dict[str, Path]:
    """A model for any batch size, a model for a single image, and a broken file."""
    model_files = {name: tmp_path / f"{name}.onnx" for name in ("any_batch", "one_image", "broken")}
    cost.export_file(OneConvolution(), model_files["any_batch"], 64)
    cost.export_file(OneConvolution(), model_files["one_image"], 64, dynamic=False)
    model_files["broken"].write_bytes(b"no model")
    return model_files


def test_a_model_for_a_single_image_has_no_time_in_a_batch(model_files: dict[str, Path]) -> None:
    times, failures = cost.time_files({name: model_files[name] for name in ("any_batch", "one_image")}, rounds=2)
    assert not failures
    assert all(row["cpu_ms"] > 0 and row["p99_ms"] >= row["p50_ms"] > 0 for row in times.values())
    assert "batched_cpu_ms" in times["any_batch"] and "batched_cpu_ms" not in times["one_image"]


def test_a_broken_file_is_a_failure_beside_the_times_of_others(model_files: dict[str, Path]) -> None:
    times, failures = cost.time_files({name: model_files[name] for name in ("any_batch", "broken")}, rounds=1)
    assert set(times) == {"any_batch"} and list(failures) == ["broken"] and "BadInput" in failures["broken"]


def test_peak_memory_of_a_file_is_measured(model_files: dict[str, Path]) -> None:
    growth_mb = cost.measure_memory(model_files["any_batch"])
    assert growth_mb is not None and growth_mb > 1


@pytest.fixture
def local_weights(real_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSPECT_KD_WEIGHTS", str(real_weights))
    return real_weights


@pytest.mark.parametrize("name", ["patchcore", "padim", "stfpm", "fastflow", "supersimplenet"])
def test_the_frozen_encoder_of_a_peer_has_our_weights(name: str, local_weights: Path) -> None:
    entry = PEERS[name]
    module = peers.build(entry)
    found = weights.find_local(str(entry.encoder))
    assert found is not None
    our_stem = weights.load_state(found.path)["conv_stem.weight"]
    stems_of_peer = {key: value for key, value in module.state_dict().items() if key.endswith("conv_stem.weight")}
    frozen_stems = {key: value for key, value in stems_of_peer.items() if "student" not in key}
    assert frozen_stems and all(torch.equal(value, our_stem) for value in frozen_stems.values())
    assert all(not torch.equal(value, our_stem) for key, value in stems_of_peer.items() if "student" in key)


def test_a_peer_is_trained_measured_and_exported(local_weights: Path, metal: DataSet, tmp_path: Path) -> None:
    result = peers.run_entry(PEERS["padim"], metal, tmp_path, 0.1, NoProgress())
    assert "failure" not in result and set(result["metrics"]["metal"]) == set(METRICS)
    assert result["metrics"]["metal"]["image_auroc"] > 0.5
    session = open_session((tmp_path / "model.onnx").read_bytes(), "padim", RuntimeOptions(allow_cpu=True))
    image = np.random.default_rng(0).integers(0, 255, (1, SIZE, SIZE, 3), dtype=np.uint8)
    heatmap, score = session.run(None, {session.get_inputs()[0].name: image})
    assert heatmap.shape == (1, 1, SIZE, SIZE) and score.shape == (1,) and np.isfinite(heatmap).all()


def test_the_memory_entry_finds_defects_and_is_exported(local_weights: Path, metal: DataSet, tmp_path: Path) -> None:
    result = load("bench", "memory").run_entry(MEMORY["memory"], metal, tmp_path, 0, NoProgress())
    assert result["metrics"]["metal"]["image_auroc"] > 0.9 and (tmp_path / "model.onnx").is_file()


FAILING_ENTRIES = {name: Entry(name=name, maker="peers", model=name) for name in ("NoSuchModel", "NoOtherModel")}


def test_a_failure_is_a_result_and_the_next_entry_is_run(metal: DataSet, tmp_path: Path) -> None:
    results = runner.run_benchmark({"metal": metal}, FAILING_ENTRIES, tmp_path, 0.1, NoProgress())
    assert all(name in results["metal"][name]["failure"] for name in FAILING_ENTRIES)


def test_failed_entries_are_not_run_again_without_retry(metal: DataSet, tmp_path: Path) -> None:
    results = runner.run_benchmark({"metal": metal}, FAILING_ENTRIES, tmp_path, 0.1, NoProgress())
    result_files = [tmp_path / "metal" / name / runner.RESULT_FILE for name in FAILING_ENTRIES]
    before = [file.stat().st_mtime_ns for file in result_files]
    assert (
        runner.run_benchmark({"metal": metal}, FAILING_ENTRIES, tmp_path, 0.1, NoProgress(), retry_failed=False)
        == results
    )
    assert [file.stat().st_mtime_ns for file in result_files] == before


def test_the_time_limit_of_a_peer_is_our_slowest_training(metal: DataSet, tmp_path: Path) -> None:
    our_entries = {name: Entry(name=name, maker="ours", model=name) for name in ("omni_ad", "embedded", "ras")}
    published = {"omni_ad": {"metrics": {}, "train_seconds": 61}, "embedded": {"metrics": {}, "train_seconds": 9}}
    published["ras"] = {"failure": "killed", "train_seconds": 900}
    peer = Entry(name="peer", maker="peers", model="NoSuchModel")
    results = runner.run_benchmark(
        {"metal": metal}, {**our_entries, "peer": peer}, tmp_path, None, NoProgress(), published={"metal": published}
    )
    # Published results are not measured again; they set the time limit.
    assert {key: results["metal"][key] for key in our_entries} == published and not (
        tmp_path / "metal" / "ras"
    ).exists()
    assert (tmp_path / "metal" / "peer" / runner.DIGEST_FILE).read_text() == runner.entry_digest(peer, metal, 2)
    assert runner.slowest_student_minutes({}, {}) == runner.DEFAULT_MINUTES


ENTRY = Entry(name="x", maker="peers", model="Padim")


def test_a_result_depends_on_data_entry_and_minutes(metal: DataSet, parts: Path) -> None:
    board, digest = open_dataset(parts).only("board"), runner.entry_digest(ENTRY, metal, 1)
    assert digest == runner.entry_digest(ENTRY, metal, 1)
    others = [(replace(ENTRY, model="Stfpm"), metal, 1), (ENTRY, board, 1), (ENTRY, metal, 2)]
    assert digest not in {runner.entry_digest(*other) for other in others}


def test_only_a_result_of_the_same_work_is_finished(tmp_path: Path) -> None:
    runner._prepare_folder(tmp_path / "x", "work")
    assert not runner._is_finished(tmp_path / "x", "work")
    (tmp_path / "x" / runner.RESULT_FILE).write_text('{"metrics": {}}')
    assert runner._is_finished(tmp_path / "x", "work") and not runner._is_finished(tmp_path / "x", "other")


def test_a_failure_counts_as_finished_only_if_failures_are_accepted(tmp_path: Path) -> None:
    runner._prepare_folder(tmp_path / "x", "work")
    (tmp_path / "x" / runner.RESULT_FILE).write_text('{"failure": "no hub today"}')
    assert not runner._is_finished(tmp_path / "x", "work")
    assert runner._is_finished(tmp_path / "x", "work", accept_failed=True)


@pytest.mark.parametrize(("digest", "is_kept"), [("work", True), ("other", False)])
def test_a_folder_is_resumed_for_the_same_work_and_cleared_for_another(
    tmp_path: Path, digest: str, is_kept: bool
) -> None:
    runner._prepare_folder(tmp_path / "x", "work")
    (tmp_path / "x" / "checkpoint").touch()
    runner._prepare_folder(tmp_path / "x", digest)
    assert (tmp_path / "x" / "checkpoint").exists() is is_kept


def exit_process(*_: Any) -> None:
    os._exit(7)


def test_a_peer_that_ends_its_process_is_a_failure(
    metal: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_run_entry", exit_process)
    results = runner.run_benchmark({"metal": metal}, {"x": Entry(name="x", maker="peers")}, tmp_path, 1, NoProgress())
    assert "exit status 7" in results["metal"]["x"]["failure"]


def make_result(value: float) -> dict[str, Any]:
    metrics: Mapping[str, float] = dict.fromkeys(METRICS, value)
    by_category = {"x": metrics, "y;=1+1": metrics, "mean": metrics}
    return {"metrics": by_category, "train_seconds": 60.0, "gflop": 1.0, "note": ""}


RESULTS = {"unified": {"a": make_result(0.5), "b": make_result(0.9), "c": {"failure": "ValueError: no | such thing"}}}


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """The folder with the pages of a comparison: our entry, a peer, and a failed entry."""
    entries = {
        "a": Entry(name="ours <a>", maker="ours"),
        "b": Entry(name="peer", maker="peers", light=True),
        "c": Entry(name="broken", maker="peers"),
    }
    cost_values = {
        "cpu_ms": 10.0,
        "p50_ms": 10.0,
        "p99_ms": 11.0,
        "file_mb": 1.0,
        "memory_mb": 2.0,
        "peak_gflops": 200.0,
    }
    costs = {"a": cost_values, "b": cost_values | {"cpu_ms": 40.0, "batched_cpu_ms": 30.0}}
    comparison = page.Comparison(entries=entries, results=RESULTS, costs=costs, environment=environment("cpu"))
    assert page.write(tmp_path, comparison) == tmp_path / "bench.html"
    return tmp_path


def test_names_are_text_in_the_html_page(pages: Path) -> None:
    html = (pages / "bench.html").read_text()
    assert "ours &lt;a&gt;" in html and "<a>" not in html.replace("ours &lt;a&gt;", "")


def test_the_markdown_page_has_the_best_first_and_failures_last(pages: Path) -> None:
    text = (pages / "bench.md").read_text()
    assert text.index("| peer |") < text.index("| ours <a> |") < text.index("| broken |")
    assert "no ¦ such thing" in text
    # Our entry takes a quarter of the light peer's time, and reaches half of the peak of 200 GFLOP/s.
    assert "| 0.25 |" in text and "| 50% |" in text


def test_the_csv_has_a_row_for_each_entry_and_category(pages: Path) -> None:
    rows = list(csv.DictReader((pages / "bench.csv").open()))
    assert {row["category"] for row in rows} == {"x", "y;'=1+1", "mean", ""}
    assert len(rows) == 7 and {row["entry"] for row in rows} == {"ours <a>", "peer", "broken"}


def test_the_json_holds_the_results(pages: Path) -> None:
    assert json.loads((pages / "bench.json").read_text())["results"] == RESULTS


def run_bench(parts: Path, recipe: Path, out: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["bench", "--data", str(parts), "--model", str(recipe), "--against", "none", "--out", str(out)]
    return subprocess.run([sys.executable, "-m", "inspect_kd", *arguments], capture_output=True, text=True, check=False)


def test_the_command_refuses_a_recipe_of_another_image_size(parts: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(load_recipe("embedded", TINY).to_yaml())
    result = run_bench(parts, recipe, tmp_path / "out")
    assert result.returncode == 2 and "256x256" in result.stderr


def test_the_command_writes_its_pages_and_does_not_train_twice(parts: Path, tmp_path: Path) -> None:
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "out"
    quick = [*TINY, "data.size=256", "fit.steps=4", "fit.evaluate_every=2"]
    recipe.write_text(load_recipe("embedded", quick).to_yaml())
    first = run_bench(parts, recipe, out)
    assert first.returncode == 0, first.stderr
    assert {"bench.html", "bench.md", "bench.csv", "bench.json"} <= {path.name for path in out.iterdir()}
    manifest = out / "unified" / "tiny" / "run" / "run.json"
    before = manifest.stat().st_mtime_ns
    assert run_bench(parts, recipe, out).returncode == 0 and manifest.stat().st_mtime_ns == before
    rows = list(csv.DictReader((out / "bench.csv").open()))
    assert [row["category"] for row in rows] == ["board", "bottle", "fabric", "metal", "mean"]
    assert all(float(row["cpu_ms"]) > 0 and float(row["memory_mb"]) > 0 for row in rows)
