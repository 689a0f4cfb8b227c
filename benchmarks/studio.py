"""Measure how fast the Studio answers and how much memory it takes. Writes docs/results/studio.{json,md}.

    INSPECT_KD_REAL_DATA=… python -m benchmarks.studio --artifact part.onnx [--rounds 10] [--parts 200]

Starts the server as a user does, on real parts. In each round the parts are inspected and cleared, and the server's memory is read.
Then a threshold is moved, in a browser (timed from the key press to the new decisions on the page) and through the API.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from gradio_client import Client, handle_file
from playwright.sync_api import sync_playwright

from benchmarks.results import RESULTS, Content, publish
from inspect_kd.child_process import python_command, python_environment

MOVES = 12
"""Number of timed moves of a threshold."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--parts", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    data = Path(os.environ["INSPECT_KD_REAL_DATA"])
    paths = sorted(path for path in data.glob("*/*/test/*/*") if path.suffix in {".jpg", ".png"})
    images = [paths[i * len(paths) // options.parts] for i in range(options.parts)]
    with tempfile.TemporaryDirectory() as folder:
        process, address = start(options.artifact, Path(folder))
        try:
            content = measure(process.pid, address, images, options.rounds)
        finally:
            process.terminate()
            process.wait(30)
    content |= {"date": datetime.now(UTC).date().isoformat(), "artifact": options.artifact.stem, "parts": len(images)}
    publish("studio", content, page, options.out)


def start(artifact: Path, folder: Path) -> tuple[subprocess.Popen[str], str]:
    store = str(folder / "store")
    command = python_command("-m", "inspect_kd", "ui", str(artifact), "--store", store, "--port", "7899")
    environment = python_environment() | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[2]


def measure(pid: int, address: str, images: list[Path], rounds: int) -> dict[str, Any]:
    client = Client(address, verbose=False)
    uploads = [handle_file(path) for path in images]
    memory, rates = [resident_mb(pid)], []
    for number in range(rounds):
        began = time.monotonic()
        client.predict(uploads, "", "", api_name="/inspect")
        rates.append(len(images) / (time.monotonic() - began))
        memory.append(resident_mb(pid))
        print(f"round {number + 1}: {memory[-1]:.0f} MB, {rates[-1]:.1f} parts/s", file=sys.stderr, flush=True)
        if number < rounds - 1:
            client.predict(api_name="/clear")
    api_seconds = []
    for move in range(MOVES):
        began = time.monotonic()
        result = client.predict(0.3 + 0.05 * move, 0.5 + 0.05 * move, api_name="/decide")
        api_seconds.append(time.monotonic() - began)
        assert len(result["decisions"]) == len(images)
    client.predict(api_name="/clear")
    return {
        "memory_mb": [round(megabytes) for megabytes in memory],
        "parts_per_second": round(median(rates), 1),
        "move_api_s": summarise(api_seconds),
        "move_page_s": summarise(time_moves_in_browser(address, images)),
    }


def time_moves_in_browser(address: str, images: list[Path]) -> list[float]:
    """Seconds from the key that ends the number until the banner and the histogram show it."""
    seconds = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
        )
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.set_default_timeout(180_000)
        tab.goto(address)
        tab.wait_for_selector("#viewer .empty")
        # Each file gets a unique name: data sets repeat names, and a browser sends the name alone.
        files = [shutil.copy(path, Path(folder) / f"{n:03d}{path.suffix}") for n, path in enumerate(images)]
        tab.set_input_files("#drop input[type=file]", [str(file) for file in files])
        tab.wait_for_function(f"document.querySelector('[data-filter=all] b')?.innerText === '{len(images)}'")
        tab.wait_for_selector("#progress .progress", state="hidden")
        for move in range(MOVES):
            threshold = 1.05 + 0.05 * move
            tab.locator("#reject input[type=number]").fill(f"{threshold:.2f}")
            seconds.append(
                tab.evaluate(
                    """text => new Promise(done => { const began = performance.now();
                    const poll = () => document.querySelector('#viewer .banner').innerText.includes(text)
                        && document.querySelector('#scores svg').innerHTML.includes(text.slice(-5, -1))
                        ? done((performance.now() - began) / 1000) : requestAnimationFrame(poll);
                    document.querySelector('#reject input[type=number]').dispatchEvent(new FocusEvent('blur'));
                    poll(); })""",
                    f"NG above {threshold:.3f}",
                )
            )
        browser.close()
    return seconds


def summarise(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {"median": round(median(ordered), 3), "worst": round(ordered[-1], 3)}


def resident_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def page(content: Content) -> str:
    memory, parts = content["memory_mb"], content["parts"]
    measurements = {
        f"a threshold moved over {parts} parts, on the page": describe_times(content["move_page_s"]),
        "the same through the API": describe_times(content["move_api_s"]),
        "inspected through the API, upload included": f"{content['parts_per_second']} parts/s",
        f"memory at the start, then after each of {len(memory) - 1} rounds of {parts} parts": f"{', '.join(map(str, memory))} MB",
    }
    about = f"Written by `python -m benchmarks.studio`, {content['date']}; artifact {content['artifact']}, real parts, two shared cores."
    rows = "".join(f"| {what} | {measured} |\n" for what, measured in measurements.items())
    return f"# Speed and memory of the Studio\n\n{about}\n\n| what | measured |\n|---|---|\n{rows}"


def describe_times(seconds: dict[str, float]) -> str:
    return f"median {seconds['median']} s, worst {seconds['worst']} s"


if __name__ == "__main__":
    main()
