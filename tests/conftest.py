"""Fixtures that every room shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

REAL_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
REAL_WEIGHTS = Path(__file__).parents[1] / ".." / "shared" / "weights"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the golden files from what the program gives"
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """With two threads on a busy two-core machine a tiny step took six times longer."""
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real inspection images, where the machine has them."""
    folder = Path(os.environ.get("INSPECT_KD_REAL_DATA", REAL_DATA)).resolve()
    if not folder.is_dir():
        pytest.skip(f"real inspection images are not on this machine ({folder}); set INSPECT_KD_REAL_DATA")
    return folder


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Real ImageNet weights, where the machine has them."""
    folder = Path(os.environ.get("INSPECT_KD_REAL_WEIGHTS", REAL_WEIGHTS)).resolve()
    if not folder.is_dir():
        pytest.skip(f"real ImageNet weights are not on this machine ({folder}); set INSPECT_KD_REAL_WEIGHTS")
    return folder
