"""The program's own folders are private whatever the umask, and settings may name them with a `~`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inspect_kd import quarantine, signing, zoo
from inspect_kd.export.engine_cache import engine_folder
from inspect_kd.tensor_cache import TensorCache
from tests.fuzzing import graphs


@pytest.fixture(params=[0o000, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    former = os.umask(request.param)
    yield
    os.umask(former)


def admit_an_artifact(cache: Path) -> None:
    quarantine.admit(graphs.artifact().SerializeToString(), cache / "a.onnx", "onnx")


USES: list[Callable[[Path], object]] = [
    admit_an_artifact,
    lambda cache: engine_folder(),
    lambda cache: TensorCache(cache / "teacher-outputs", "weights", "transform"),
]


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("use", USES, ids=["quarantine", "engines", "tensors"])
def test_created_folders_are_private_and_accepted_again(
    use: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    cache = tmp_path / "home" / ".cache" / "inspect-kd"
    monkeypatch.setenv("INSPECT_KD_CACHE", str(cache))
    use(cache)
    admit_an_artifact(cache)
    created = [cache, *cache.iterdir(), *cache.parents[:2]]
    assert {path.stat().st_mode & 0o777 for path in created} == {0o700}


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("INSPECT_KD_TRUST", signing.trust_store),
        ("INSPECT_KD_CACHE", zoo.cache_home),
        ("INSPECT_KD_DATA", zoo.data_home),
    ],
)
def test_tilde_in_a_setting_is_the_home_folder(
    variable: str, folder: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, "~/there")
    assert folder() == tmp_path / "there"
