"""`inspect-kd sign` shows what it signs, and `keygen` refuses misleading names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from inspect_kd.errors import UsageError
from inspect_kd.sign_off import SignOff
from inspect_kd.signing import make_keys
from inspect_kd.types import Thresholds


def test_sign_shows_the_bound_artifact_and_the_former_thresholds(tmp_path: Path) -> None:
    """A sign-off may claim any name for the artifact; only its digest binds."""
    new, default = Thresholds(reinspect=0.5, reject=0.9), Thresholds(reinspect=0.7, reject=1.0)
    file = SignOff(by="Ada", thresholds=new, default_thresholds=default, artifact="bottle", sha256="5e" * 32).write(
        tmp_path
    )
    make_keys(tmp_path / "key.pem", None)
    command = [sys.executable, "-m", "inspect_kd", "sign", str(file), "--key", str(tmp_path / "key.pem")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "RE-INSPECT above 0.5 (was 0.7), NG above 0.9 (was 1)" in output
    assert "for bottle (all categories), sha256 5e5e5e5e5e5e, signed off by Ada" in output


def test_keygen_refuses_a_private_key_named_pub(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"name the private key .*quality\.pem"):
        make_keys(tmp_path / "quality.pub", None)
    assert not list(tmp_path.iterdir())
