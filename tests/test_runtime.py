"""Runtime options, which must not change predictions, and the engine cache."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from inspect_kd.errors import EnvironmentFault, UsageError
from inspect_kd.export.engine_cache import MAX_ENGINES, EngineKey, engine_folder, load_or_build
from inspect_kd.export.options import RuntimeOptions, usable_processors
from inspect_kd.inspector import Inspector
from inspect_kd.stopwatch import time_in_turns


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def test_bound_buffers_give_the_same_predictions_and_return_copies(run: Path) -> None:
    plain, bound = Inspector(run / "r.onnx"), Inspector(run / "r.onnx", options=RuntimeOptions(bind=True))
    first = bound.predict_batch(noise(2, 1))
    first_scores = first.scores_N.copy()
    for count, seed in ((1, 2), (2, 3), (3, 4), (2, 1)):
        a, b = plain.predict_batch(noise(count, seed)), bound.predict_batch(noise(count, seed))
        assert np.array_equal(a.scores_N, b.scores_N) and np.array_equal(a.heatmaps_NHW, b.heatmaps_NHW)
    assert np.array_equal(first.scores_N, first_scores), "a later call overwrote earlier scores"


def test_threads_share_bound_buffers(run: Path) -> None:
    plain, bound = Inspector(run / "r.onnx"), Inspector(run / "r.onnx", options=RuntimeOptions(bind=True))
    expected = [plain.predict_batch(noise(1, seed)).scores_N[0] for seed in range(8)]
    scores: dict[tuple[int, int], float] = {}

    def predict(worker: int) -> None:
        for turn in range(10):
            for seed in range(8):
                scores[worker, turn * 8 + seed] = bound.predict_batch(noise(1, seed)).scores_N[0]

    threads = [threading.Thread(target=predict, args=(worker,)) for worker in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(scores) == 240
    assert all(score == expected[turn % 8] for (_, turn), score in scores.items())


def test_threads_and_spinning_do_not_change_scores(run: Path) -> None:
    images = noise(2)
    expected = Inspector(run / "r.onnx").predict_batch(images).scores_N
    for options in (RuntimeOptions(threads=2), RuntimeOptions(threads=2, spinning=True)):
        inspector = Inspector(run / "r.onnx", options=options)
        inspector.warm_up((1, 2))
        assert inspector.predict_batch(images).scores_N == pytest.approx(expected, abs=1e-5)


def test_threads_are_limited_to_the_processors(run: Path) -> None:
    processors = usable_processors()
    assert RuntimeOptions(threads=100_000).threads == processors
    before = len(list(Path("/proc/self/task").iterdir()))
    inspector = Inspector(run / "r.onnx", threads=processors + 20)
    inspector.warm_up()
    assert len(list(Path("/proc/self/task").iterdir())) <= before + processors


def test_more_threads_than_processors_are_reported(tmp_path: Path) -> None:
    words = ["predict", str(tmp_path / "none.onnx"), "x.png", "--threads", "100000"]
    result = subprocess.run([sys.executable, "-m", "inspect_kd", *words], capture_output=True, text=True, check=False)
    first, second = result.stderr.splitlines()
    assert first.startswith("--threads 100000: only") and second.endswith("no such artifact")


def test_impossible_options_are_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        RuntimeOptions(threads=0)
    for wrong in ({"device": "cpu", "bind": True}, {"device": "cuda"}):
        with pytest.raises(UsageError, match="needs fixed buffers on a GPU"):
            RuntimeOptions(cuda_graph=True, **wrong)  # type: ignore[arg-type]


def test_time_in_turns_alternates_and_counts_runs() -> None:
    order: list[str] = []
    times = time_in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, warm_up=1, max_runs=2)
    assert order == ["a", "a", "b", "b"] * 4
    assert len(times["a"].wall_ms) == len(times["b"].cpu_ms) == 6  # the warm-up does not count
    metrics = times["a"].summarise(images=2)
    assert metrics["p50_ms"] <= metrics["p90_ms"] <= metrics["p99_ms"]
    assert metrics["images_per_second"] == pytest.approx(1000 / metrics["p50_ms"])


def test_bench_latency_reports_percentiles_by_batch_size(run: Path) -> None:
    command = [sys.executable, "-m", "inspect_kd", "bench-latency", str(run)]
    words = [*command, "--batches", "1,3", "--rounds", "2"]
    result = subprocess.run([*words, "--json"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    timings = json.loads(result.stdout)["artifacts"][str(run / "r.onnx")]
    rows = list(timings)
    assert rows[:2] == ["1", "3"] and rows[-1].startswith("1, from an image")
    assert {row.split(" of ")[0] for row in rows[2:]} <= {"alignment", "1, from an image"}
    assert all(0 < metrics["p50_ms"] <= metrics["p99_ms"] and metrics["runs"] >= 2 for metrics in timings.values())
    table = subprocess.run([*words, "--bind"], capture_output=True, text=True, check=False).stdout
    assert "p99 ms" in table and "from an" in table
    for wrong in ("0", "1,x", "65"):
        result = subprocess.run([*command, "--batches", wrong], capture_output=True, text=True, check=False)
        assert result.returncode == 2 and "sizes from 1 to 64" in result.stderr


KEY = {"artifact": "a" * 64, "size": 256, "batch": 8, "gpu": "G 9.0", "driver": "600", "tensorrt": "10.9"}


def test_engine_is_built_once_per_key(tmp_path: Path) -> None:
    folder, built = engine_folder(str(tmp_path / "e")), []

    def build() -> bytes:
        built.append(len(built))
        return f"plan {len(built)}".encode()

    assert load_or_build(folder, EngineKey(**KEY), build) == b"plan 1" == load_or_build(folder, EngineKey(**KEY), build)
    for key, other in (
        ("artifact", "b" * 64),
        ("gpu", "H 8.7"),
        ("driver", "601"),
        ("tensorrt", "10.10"),
        ("batch", 1),
    ):
        load_or_build(folder, EngineKey(**(KEY | {key: other})), build)
    assert len(built) == 6


def test_changed_engine_is_rebuilt(tmp_path: Path) -> None:
    folder = engine_folder(str(tmp_path / "e"))
    load_or_build(folder, EngineKey(**KEY), lambda: b"first")
    plan = next(folder.glob("*.plan"))
    plan.write_bytes(b"swapped")
    assert load_or_build(folder, EngineKey(**KEY), lambda: b"second") == b"second"
    plan.with_suffix(".sha256").unlink()
    assert load_or_build(folder, EngineKey(**KEY), lambda: b"third") == b"third"
    assert not list(folder.glob("*.partial"))


def test_engine_writable_by_others_is_refused(tmp_path: Path) -> None:
    folder = engine_folder(str(tmp_path / "e"))
    load_or_build(folder, EngineKey(**KEY), lambda: b"first")
    next(folder.glob("*.plan")).chmod(0o666)
    with pytest.raises(EnvironmentFault, match="other users may write there"):
        load_or_build(folder, EngineKey(**KEY), lambda: b"second")
    folder.chmod(0o777)
    with pytest.raises(EnvironmentFault, match="other users may write there"):
        engine_folder(str(folder))


def test_least_recently_used_engines_are_deleted(tmp_path: Path) -> None:
    folder = engine_folder(str(tmp_path / "e"))
    for number in range(MAX_ENGINES + 3):
        load_or_build(folder, EngineKey(**(KEY | {"driver": str(number)})), lambda: b"x")
    assert len(list(folder.glob("*.plan"))) == len(list(folder.glob("*.sha256"))) == MAX_ENGINES
