"""The command line: help, exit codes, no heavy imports before they are needed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = [
    "",
    "demo",
    "train",
    "eval",
    "export",
    "predict",
    "ui",
    "label-next",
    "keygen",
    "sign",
    "verify",
    "bench",
    "bench-latency",
    "data",
    "data ls",
    "data check",
    "data get",
    "data draw",
    "ls",
    "cp",
    "doctor",
]


def call(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.argv[0] = 'inspect-kd'; from inspect_kd.cli import main; main()"
    variables = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"} | environment
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, env=variables, cwd=cwd
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_matches_the_golden_file(command: str, request: pytest.FixtureRequest) -> None:
    result = call(*command.split(), "--help")
    assert result.returncode == 0
    text = "\n".join(line.rstrip() for line in result.stdout.splitlines()) + "\n"
    golden = GOLDEN / f"help_{command.replace(' ', '_') or 'all'}.txt"
    if request.config.getoption("--update-golden"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text(), "changed on purpose? pytest --update-golden"


def test_documented_help_matches_the_golden_files(request: pytest.FixtureRequest) -> None:
    """docs/cli.md is assembled from the golden files."""
    sections = ["# Command line", "", "Generated: `make golden`.", ""]
    for command in COMMANDS:
        text = (GOLDEN / f"help_{command.replace(' ', '_') or 'all'}.txt").read_text()
        sections += [f"## inspect-kd {command}".rstrip(), "", "```", text.strip(), "```", ""]
    document = GOLDEN.parents[1] / "docs" / "cli.md"
    if request.config.getoption("--update-golden"):
        document.write_text("\n".join(sections))
    assert document.read_text() == "\n".join(sections)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['inspect-kd', 'train', '--help']\nfrom inspect_kd.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint('LOADED', *{m.split('.')[0] for m in sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split("LOADED")[1].split())
    assert not loaded & {"torch", "numpy", "cv2", "onnxruntime", "anomalib", "PIL"}


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("train", "--data", "./none"), 3, "no such folder"),
        (("train", "--data", "empty"), 3, "no layout recognised"),
        (("train", "--data", "sampel"), 2, "Did you mean 'sample'"),
        (("train", "--data", "mvtec", "--model", "omni"), 2, "no recipe named 'omni'"),
        (("train",), 2, "Missing option"),
        (("eval", ".", "--data", "mvtec", "--min", "speed=3"), 2, "no metric 'speed'"),
        (("eval", ".", "--data", "mvtec", "--min", "image_auroc=nan"), 2, "metric=number"),
        (("bench-latency", ".", "--batches", "²"), 2, "sizes from 1"),
        (("cp", "models", "nothing"), 2, "no recipe named"),
        (("data", "get", "mpdd", "--yes"), 2, "must be downloaded by hand"),
        (("predict", "a.onnx", "x.png"), 3, "no such artifact"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_error_is_short_and_has_its_exit_code(
    arguments: tuple[str, ...], code: int, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    result = call(*arguments, cwd=tmp_path, INSPECT_KD_DATA=str(tmp_path / "data"))
    assert result.returncode == code, result.stderr
    assert reason in result.stderr and "Traceback" not in result.stderr


def test_embedded_encoder_is_the_fallback_without_weights_and_hub(parts: Path, tmp_path: Path) -> None:
    offline = {"INSPECT_KD_WEIGHTS": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = call("train", "--data", str(parts), "--dry-run", "--json", **offline)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["recipe"]["name"] == "embedded"
    assert "using --model embedded" in result.stderr
    # A recipe that was named explicitly is not replaced.
    result = call("train", "--data", str(parts), "--model", "omni_ad", "--dry-run", **offline)
    assert result.returncode == 4 and "--model embedded" in result.stderr


def test_seed_beyond_signed_64_bits_is_a_usage_error(tmp_path: Path) -> None:
    result = call("data", "draw", "--seed", str(2**63), "--to", "drawn", cwd=tmp_path)
    assert result.returncode == 2 and not (tmp_path / "drawn").exists()


def test_ls_lists_and_cp_copies_recipes(tmp_path: Path) -> None:
    recipes = json.loads(call("ls", "--json").stdout)
    assert {"omni_ad", "embedded", "omni_ad_paper"} <= set(recipes["models"]) and "onnx" in recipes["export"]
    assert call("cp", "models", "omni_ad", str(tmp_path)).returncode == 0
    copy = tmp_path / "omni_ad.yaml"
    assert "build: omni_ad" in copy.read_text()
    result = call("cp", "models", "omni_ad", str(copy))
    assert result.returncode == 2 and "nothing was copied" in result.stderr


def test_doctor_opens_a_session_with_each_provider() -> None:
    result = call("doctor", "--json")
    checks = {(check["name"], check["state"]): check["text"] for check in json.loads(result.stdout)}
    assert "works" in checks["runtime", "ok"]
    assert any(name == "packages" for name, _ in checks)
    assert result.returncode == 0, result.stdout


def test_eval_measures_and_gates(run: Path, parts: Path) -> None:
    result = call("eval", str(run), "--data", str(parts), "--json")
    assert result.returncode == 0, result.stderr
    metrics = json.loads(result.stdout)["metrics"]
    expected = json.loads((run / "run.json").read_text())["metrics"]
    assert metrics["mean"]["pixel_auroc"] == pytest.approx(expected["mean"]["pixel_auroc"], abs=1e-3)
    result = call("eval", str(run / "r.onnx"), "--data", str(parts), "--min", "image_auroc=1.01")
    assert result.returncode == 1 and re.search(r"below the gate: image_auroc 0\.\d+ < 1\.01", result.stderr)


def test_run_can_be_exported_again(run: Path, tmp_path: Path) -> None:
    result = call("export", str(run), "--output", str(tmp_path / "again.onnx"), "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["parity"]["flips"] == 0 and (tmp_path / "again.onnx").is_file()


@pytest.mark.parametrize("width", ["abc", "-1", "", "100"])
def test_terminal_width_never_causes_a_traceback(width: str) -> None:
    result = call("ls", "--help", TERMINAL_WIDTH=width)
    assert result.returncode == 0 and "Traceback" not in result.stderr


def test_ctrl_c_during_the_imports_ends_with_its_exit_code() -> None:
    program = (
        "import runpy, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "runpy.run_module('inspect_kd', run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "inspect-kd: stopped\n")
