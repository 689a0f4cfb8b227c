"""Rules of the Studio's middleware without a server: hosts, origins, logins, temporary folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspect_kd.apps.studio.server.allowed_hosts import AllowedHosts, is_host
from inspect_kd.apps.studio.server.temporary_folder import TemporaryFolder


def test_hosts_and_origins_of_the_listening_address_are_accepted() -> None:
    everywhere, line = AllowedHosts("0.0.0.0"), AllowedHosts("Line3.example")
    assert all(everywhere.accepts_host(host) for host in ("10.1.2.3:7860", "[fe80::1]:7860", "localhost"))
    assert not everywhere.accepts_host("evil.example") and not line.accepts_host("10.1.2.3")
    assert line.accepts_host("line3.example:7860") and line.accepts_host("127.0.0.1")
    assert line.accepts_origin("http://line3.example:7860", "line3.example:7860")
    assert not line.accepts_origin("http://line3.example:7861", "line3.example:7860")
    assert not line.accepts_origin("chrome-extension://abc", "line3.example")


def test_public_name_is_a_host_without_scheme_or_path() -> None:
    assert is_host("studio.example") and is_host("studio.example:8443")
    assert not any(is_host(name) for name in ("https://studio.example", "studio.example/x", "", "a b:c", "x:99999"))


def test_login_attempts_are_limited_per_address_and_refill_over_time() -> None:
    pytest.importorskip("starlette", reason="comes with Gradio: pip install 'inspect-kd[ui,cpu]'")
    from inspect_kd.apps.studio.server.login_limit import (
        BURST,
        MAX_ADDRESSES,
        SECONDS_PER_ATTEMPT,
        LoginLimit,
        network_of,
    )

    now = [0.0]
    limit = LoginLimit(lambda *_: None, clock=lambda: now[0])  # type: ignore[arg-type,return-value]
    waits = [limit.take_attempt("1.2.3.4") for _ in range(BURST + 1)]
    assert waits[:-1] == [0.0] * BURST and waits[-1] == SECONDS_PER_ATTEMPT
    assert limit.take_attempt("1.2.3.5") == 0.0, "another address is not locked out"
    now[0] += SECONDS_PER_ATTEMPT
    assert limit.take_attempt("1.2.3.4") == 0.0
    assert limit.take_attempt("1.2.3.4") > 0
    for number in range(MAX_ADDRESSES + 10):
        limit.take_attempt(str(number))
    assert len(limit.full_at) == MAX_ADDRESSES
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff") != network_of("2001:db8:0:1::1")
    assert (
        network_of("10.0.0.1") == network_of("::ffff:10.0.0.1") == "10.0.0.1" and network_of("odd:text") == "odd:text"
    )


def test_only_abandoned_folders_of_this_user_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    abandoned, unlocked, link = (tmp_path / f"x-{name}" for name in ("abandoned", "unlocked", "link"))
    for folder in (abandoned, unlocked):
        folder.mkdir()
        (folder / "file").touch()
    (abandoned / ".lock").touch()
    link.symlink_to(unlocked)
    (tmp_path / "y-abandoned").mkdir()
    first = TemporaryFolder("x-")
    assert not abandoned.exists() and unlocked.exists() and first.path.exists() and (tmp_path / "y-abandoned").exists()
    second = TemporaryFolder("x-")
    assert first.path.exists(), "its lock is held"
    for folder in (first, second):
        folder.close()
        folder.close()
        assert not folder.path.exists()
