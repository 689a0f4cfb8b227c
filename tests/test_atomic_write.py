"""Files are written whole or not at all, and never through a planted link."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inspect_kd import atomic_write
from inspect_kd.apps.studio.train.record import TrainingRecord, TrainRequest
from inspect_kd.signing import make_keys, sign
from inspect_kd.training.run import write_json


def write_signature(folder: Path) -> None:
    (folder / "part.onnx").write_bytes(b"an artifact")
    make_keys(folder / "key.pem", None)
    sign(folder / "part.onnx", folder / "key.pem")


WRITERS: dict[str, Callable[[Path], object]] = {
    "part.onnx.sig.partial": write_signature,
    "facts.partial": lambda folder: write_json(folder / "facts.json", {"a": 1}),
    "training.json.partial": lambda folder: TrainingRecord(
        name="a", request=TrainRequest(data="d", recipe="r"), requested_at=1.0
    ).write(folder),
}
"""Name of a link planted in a folder → a function that writes a file of this folder, and could write through the link."""


@pytest.mark.parametrize("planted", WRITERS)
def test_planted_link_is_not_written_through(tmp_path: Path, planted: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / planted).symlink_to(victim)
    WRITERS[planted](tmp_path)
    assert victim.read_text() == "precious"


def test_failed_write_keeps_the_former_content(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    atomic_write.write_text(path, "former")
    with pytest.raises(RuntimeError), atomic_write.partial_file(path) as partial:
        partial.write(b"half")
        raise RuntimeError
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


def test_write_new_replaces_no_file(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    atomic_write.write_new(path, b"first", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        atomic_write.write_new(path, b"second")
    assert path.read_bytes() == b"first"


@pytest.mark.parametrize("write", ["write_new", "write_bytes"])
def test_write_on_a_full_disk_leaves_no_partial_file(write: str, tmp_path: Path) -> None:
    """A limit on the size of files acts like a full disk."""
    path = tmp_path / "a.bin"
    if write == "write_bytes":
        path.write_bytes(b"former")
    program = (
        "import resource, signal, sys; from pathlib import Path; from inspect_kd import atomic_write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: getattr(atomic_write, sys.argv[1])(Path(sys.argv[2]), bytes(5000))\n"
        "except OSError: sys.exit(7)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run([sys.executable, "-P", "-c", program, write, str(path)], env=environment, check=False)
    assert child.returncode == 7
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == (
        {"a.bin": b"former"} if write == "write_bytes" else {}
    )


def test_only_abandoned_partial_files_are_removed(tmp_path: Path) -> None:
    old, young = tmp_path / f".a.{'0' * 16}.partial", tmp_path / f".b.{'1' * 16}.partial"
    old.touch()
    young.touch()
    old_folder = tmp_path / f"mine{atomic_write.SUFFIX}"
    old_folder.mkdir()
    for path in (old, old_folder):
        os.utime(path, (0, 0))
    atomic_write.remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == [young, old_folder], "a folder is not a partial file"
