"""Fuzzing for a minute: no input crashes, hangs, reads outside its folder or takes memory without bound.

`python -m benchmarks.fuzz` does the same for hours. Seeds are fixed, so failures are reproducible.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fuzzing.faulty import FAULTY
from tests.fuzzing.harness import Result, fuzz
from tests.fuzzing.targets import TARGETS

SECONDS = {"onnx": 5.0, "openvino": 5.0, "images": 4.0, "quarantine": 2.0, "quarantine_openvino": 2.0}
REQUIRED_PACKAGES = {"openvino": "openvino", "quarantine_openvino": "openvino"}


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_is_accepted_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    pytest.importorskip(REQUIRED_PACKAGES.get(name, "onnxruntime"))
    result = fuzz(name, seconds=SECONDS.get(name, 1.5), stop=20_000, findings_folder=tmp_path)
    assert not result.findings, "\n".join(
        f"{f.kind} {f.text} (input {f.index}, {tmp_path / f.file})" for f in result.findings
    )
    assert result.inputs == sum(result.outcomes.values()) + result.broke > 0
    assert bool(result.broke) == bool(result.contained)
    assert set(result.outcomes) <= {"accepted", "BadInput", "UsageError", "EnvironmentFault"}


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("crash", "crash", "-11"),
        ("busy", "hang", ""),
        ("blocked", "hang", "no answer"),
        ("memory", "memory", "MB"),
        ("denied", "memory", "denied"),
        ("outside", "outside", "secret.bin"),
        ("outsidenative", "outside", "bait"),
        ("raises", "exception", "ValueError"),
        ("leak", "leak", "MB over"),
    ],
)
def test_faults_of_a_target_are_found(fault: str, kind: str, text: str, tmp_path: Path) -> None:
    assert set(FAULTY) == {"crash", "busy", "blocked", "memory", "denied", "outside", "outsidenative", "raises", "leak"}
    # `stop` ends the fuzzing. For a leak, the seconds decide how often memory is measured.
    is_leak = fault == "leak"
    result = fuzz(
        fault,
        seconds=4 if is_leak else 60,
        stop=2500 if is_leak else 60,
        max_findings=1,
        cpu_s=1,
        megabytes=400,
        findings_folder=tmp_path,
    )
    assert [finding.kind for finding in result.findings] == [kind] and text in result.findings[0].text
    if fault == "crash":
        # The file holds the input that crashed the worker, and that input crashes it again.
        finding = result.findings[0]
        assert (tmp_path / finding.file).read_bytes()[0] < 32
        repeated = fuzz(fault, seconds=60, start=finding.index, stop=finding.index + 1, cpu_s=1, megabytes=400)
        assert [finding.kind for finding in repeated.findings] == ["crash"] and repeated.inputs == 1


def test_results_of_two_seeds_add_up(tmp_path: Path) -> None:
    first, second = (fuzz("card", seconds=60, seed=seed, stop=50, findings_folder=tmp_path) for seed in (1, 2))
    total = Result.from_json(json.loads(json.dumps(first.to_json()))) + second
    assert total.inputs == sum(total.outcomes.values()) == 100
    assert total.outcomes["BadInput"] == first.outcomes["BadInput"] + second.outcomes["BadInput"]
    assert (total.peak_mb, total.seconds) == (max(first.peak_mb, second.peak_mb), first.seconds + second.seconds)
