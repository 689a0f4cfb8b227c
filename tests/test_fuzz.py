"""The fuzz suite for a minute: no input crashes, hangs, reads outside its folder or takes memory without bound.

`python -m benchmarks.fuzz` is the same for hours. Seeds are fixed: what fails here fails again.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fuzzing.faulty import FAULTY
from tests.fuzzing.harness import Result, fuzz
from tests.fuzzing.targets import TARGETS

SECONDS = {"onnx": 5.0, "openvino": 5.0, "images": 4.0, "quarantine": 2.0, "quarantine_openvino": 2.0}
NEEDS = {"openvino": "openvino", "quarantine_openvino": "openvino"}


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_taken_or_refused_in_one_clear_line(name: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(name, "onnxruntime"))
    result = fuzz(name, seconds=SECONDS.get(name, 1.5), count=20_000, findings_folder=tmp_path)
    assert not result.findings, "\n".join(
        f"{f.kind} {f.text} (input {f.index}, {tmp_path / f.file})" for f in result.findings
    )
    assert result.inputs == sum(result.outcomes.values()) + result.broke > 0
    assert bool(result.broke) == bool(result.contained)
    assert set(result.outcomes) <= {"accepted", "BadInput", "UsageError", "EnvironmentFault"}


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
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
def test_a_door_that_breaks_is_found(fault: str, kind: str, says: str, tmp_path: Path) -> None:
    assert set(FAULTY) == {"crash", "busy", "blocked", "memory", "denied", "outside", "outsidenative", "raises", "leak"}
    # The count is the bound; of a leak the seconds say how often memory is looked at.
    leak = fault == "leak"
    result = fuzz(
        fault,
        seconds=4 if leak else 60,
        count=2500 if leak else 60,
        max_findings=1,
        cpu_s=1,
        megabytes=400,
        findings_folder=tmp_path,
    )
    assert [finding.kind for finding in result.findings] == [kind] and says in result.findings[0].text
    if fault == "crash":
        # The input is kept, is the one that did it, and does it again.
        finding = result.findings[0]
        assert (tmp_path / finding.file).read_bytes()[0] < 32
        again = fuzz(fault, seconds=60, start=finding.index, count=finding.index + 1, cpu_s=1, megabytes=400)
        assert [each.kind for each in again.findings] == ["crash"] and again.inputs == 1


def test_two_seeds_count_together(tmp_path: Path) -> None:
    first, second = (fuzz("card", seconds=60, seed=seed, count=50, findings_folder=tmp_path) for seed in (1, 2))
    both = Result.from_json(json.loads(json.dumps(first.to_json()))) + second
    assert both.inputs == sum(both.outcomes.values()) == 100
    assert both.outcomes["BadInput"] == first.outcomes["BadInput"] + second.outcomes["BadInput"]
    assert (both.peak_mb, both.seconds) == (max(first.peak_mb, second.peak_mb), first.seconds + second.seconds)
