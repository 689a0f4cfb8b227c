"""The cache of teacher outputs: its key, its size limit, and whole files despite killed or concurrent writers."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from inspect_kd.tensor_cache import RECOUNT_EVERY, TensorCache
from inspect_kd.types import ImageU8

WRITER = """
import sys, numpy as np, torch
from pathlib import Path
from inspect_kd.tensor_cache import TensorCache
torch.set_num_threads(1)
cache = TensorCache(Path(sys.argv[1]), "weights", "squash/8", limit=10**9)
print("ready", flush=True)
for turn in range(int(sys.argv[2])):
    for number in range(20):
        image = np.full((8, 8, 3), number, np.uint8)
        cache.put(image, {"tokens": torch.full((64, 64), float(number))})
"""


def pictures(count: int) -> list[ImageU8]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (8, 8, 3), dtype=np.uint8) for _ in range(count)]


def test_tensors_are_found_by_image_weights_and_transform(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> dict[str, Tensor]:
        calls.append(1)
        return {"embedding": torch.full((4, 16, 16), float(len(calls)))}

    images = pictures(2)
    cache = TensorCache(tmp_path, "weights", "squash/256")
    first, second = cache.get(images[0], make), cache.get(images[0], make)
    assert torch.equal(first["embedding"], second["embedding"]) and len(calls) == 1
    assert (cache.hits, cache.misses) == (1, 1) and first["embedding"].dtype is torch.float16
    TensorCache(tmp_path, "weights", "squash/256").get(images[0], make)
    assert len(calls) == 1
    for other in (("weights", "squash/512"), ("others", "squash/256")):
        TensorCache(tmp_path, *other).get(images[0], make)
    cache.get(images[1], make)
    assert len(calls) == 4


def test_size_is_limited_and_truncated_files_are_ignored(tmp_path: Path) -> None:
    for image in pictures(6):
        cache = TensorCache(tmp_path, "weights", "squash/256", limit=8000)
        cache.put(image, {"embedding": torch.zeros(4, 16, 16)})
        assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) <= 8000
    first, second = (TensorCache(tmp_path / "both", "weights", name, limit=60_000) for name in "ab")
    for image in pictures(200):
        for cache in (first, second):
            cache.put(image, {"embedding": torch.zeros(16)})
    shared_bytes = sum(path.stat().st_size for path in (tmp_path / "both").glob("*.safetensors"))
    assert 30_000 < shared_bytes <= 60_000 + 2 * RECOUNT_EVERY * 200, "two writers share the limit, with a delay"
    large = torch.zeros(64, 64, 16)
    assert first.put(image, {"embedding": large})["embedding"].shape == large.shape
    assert max(path.stat().st_size for path in (tmp_path / "both").glob("*.safetensors")) < 1000, (
        "a tensor above the limit was stored"
    )
    image = pictures(6)[-1]
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    assert TensorCache(tmp_path, "weights", "squash/256").find(image) is None
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("killed", [False, True])
def test_two_writers_leave_whole_files(tmp_path: Path, killed: bool) -> None:
    turns = "1000" if killed else "5"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), turns], stdout=subprocess.PIPE) for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline()
    if killed:
        time.sleep(0.3)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
    for writer in writers:
        with writer:
            assert (writer.wait() == 0) is not killed
    files = list(tmp_path.glob("*.safetensors"))
    assert files and (killed or len(files) == 20)
    for file in files:
        tokens = load_file(file)["tokens"]
        assert torch.equal(tokens, torch.full_like(tokens, float(tokens[0, 0])))
