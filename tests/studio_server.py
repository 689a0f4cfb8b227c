"""Start the Studio as a user does, in its own process on a free port, and start a browser."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@dataclass(frozen=True)
class Server:
    """A running Studio."""

    address: str
    store: Path
    temporary: Path
    """Its folder for temporary files."""
    process: subprocess.Popen[str]


def need(dependency: str, is_present: bool) -> None:
    """Skip a test where an optional dependency is missing; fail where CI is set."""
    if not is_present:
        assert not os.environ.get("CI"), f"{dependency} is missing, and CI is set"
        pytest.skip(f"{dependency} is missing: pip install 'inspect-kd[ui]', `make browser`")


@contextmanager
def studio(*arguments: str | Path, folder: Path, **environment: str) -> Iterator[Server]:
    """Run `inspect-kd ui` with these arguments in `folder` until the block ends."""
    need("gradio", find_spec("gradio") is not None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store, temporary = folder / "store", folder / "temporary"
    temporary.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-m",
            "inspect_kd",
            "ui",
            *map(str, arguments),
            "--port",
            str(port),
            "--store",
            str(store),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"TMPDIR": str(temporary)} | environment,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("inspect-kd Studio: http://127.0.0.1:"), line
        yield Server(line.split()[2].rstrip("/"), store, temporary, process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def chromium(*flags: str) -> Iterator[Any]:
    """A real browser, headless."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    need("Chromium", program is not None)
    need("playwright", find_spec("playwright") is not None)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*FLAGS, *flags])
        yield browser
        browser.close()


@contextmanager
def open_studio(browser: Any, address: str, *, timeout_s: float = 30, **context_options: Any) -> Iterator[Any]:
    """Open the Studio's page in a context of its own; requests to other hosts and script errors fail at the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True, **context_options)
    page = context.new_page()
    page.set_default_timeout(1000 * timeout_s)
    urls: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{address}/?__theme=light")
    page.wait_for_selector("#viewer .empty")
    yield page
    context.close()
    assert not [url for url in urls if not url.startswith((address, "data:", "blob:"))]
    assert errors == []


def twin(artifact: Path, folder: Path) -> Path:
    """A second artifact to compare with: a copy under another name."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(artifact, folder / "second.onnx"))


def artifact_and_images(run: Path, parts: Path) -> tuple[Path, list[Path]]:
    """A tiny artifact and drawn images, or real ones where INSPECT_KD_REAL_ARTIFACT and INSPECT_KD_REAL_DATA are set."""
    real, data = os.environ.get("INSPECT_KD_REAL_ARTIFACT"), os.environ.get("INSPECT_KD_REAL_DATA")
    if not (real and data):
        return run / "r.onnx", sorted(parts.glob("*/test/*/*.png"))[:8]
    kinds = sorted(path for path in Path(data).glob("*/*/test/*") if path.is_dir())
    return Path(real), [sorted(kind.iterdir())[0] for kind in kinds][:8]
