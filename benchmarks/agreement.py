"""Compare the decisions of ONNX Runtime, OpenVINO and the C++ program on all test images of the real categories.

    make cpp
    INSPECT_KD_REAL_DATA=… python -m benchmarks.agreement ARTIFACT_OR_RUN …

Each image is decided by its category's thresholds. Writes docs/results/agreement.{json,md}; the exit status is 1 if a decision differs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.real_data import SETS, load_categories
from benchmarks.results import RESULTS, ROOT, Content, publish
from inspect_kd.errors import BadInput
from inspect_kd.inspector import Inspector
from inspect_kd.training.run import RunFolder, environment
from inspect_kd.types import Decision, Split
from inspect_kd.versions import installed_versions

PROGRAM = ROOT / "build" / "cpp" / "inspect_kd_cpp"
REFERENCE, COMPARED = "onnx", ("openvino", "c++")
TITLES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "c++": "C++"}


class ProgramDecision(NamedTuple):
    """One program's decision on one image; a refused image is NG without a score."""

    decision: str
    score: float | None


def decide_in_python(artifact: Path, category: str, images: Sequence[Path]) -> list[ProgramDecision]:
    """Decide all images with the runtime that the file's suffix selects."""
    inspector = Inspector(artifact, category=category)
    return [
        ProgramDecision(str(Decision.NG), None)
        if isinstance(result, BadInput)
        else ProgramDecision(str(result.decision), result.score)
        for result in inspector.each(images)
    ]


def decide_in_cpp(artifact: Path, category: str, images: Sequence[Path]) -> list[ProgramDecision]:
    command = [PROGRAM, artifact, "--category", category, *images]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    if len(lines) != len(images):
        raise SystemExit(f"{PROGRAM.name} printed {len(lines)} lines for {len(images)} images: {result.stderr[-500:]}")
    return [ProgramDecision(line["decision"], line.get("score")) for line in lines]


def compare(artifact: Path, category: str) -> dict[str, Any]:
    """Compare the programs with one artifact, on one category's test images."""
    images = [sample.image for sample in load_categories([category], "omni_ad").select(Split.TEST)]
    with tempfile.TemporaryDirectory() as folder:
        # The suffix of this copy selects OpenVINO.
        renamed = Path(shutil.copy(artifact, Path(folder) / "artifact.openvino.onnx"))
        decisions = {
            "onnx": decide_in_python(artifact, category, images),
            "openvino": decide_in_python(renamed, category, images),
            "c++": decide_in_cpp(artifact, category, images),
        }
    thresholds = Inspector(artifact, category=category).thresholds
    differences = [
        {"image": image.name, **{name: by_image[number]._asdict() for name, by_image in decisions.items()}}
        for number, image in enumerate(images)
        if len({by_image[number].decision for by_image in decisions.values()}) > 1
    ]
    scores = [entry.score for entry in decisions[REFERENCE] if entry.score is not None]
    return {
        "artifact": artifact.name,
        "category": category,
        "images": len(images),
        "decisions": {
            name: dict(Counter(entry.decision for entry in by_image)) for name, by_image in decisions.items()
        },
        "unread": {name: sum(entry.score is None for entry in by_image) for name, by_image in decisions.items()},
        "differ": differences,
        "largest": {name: largest_difference(decisions[REFERENCE], decisions[name]) for name in COMPARED},
        # A smaller difference cannot change a decision.
        "nearest_to_a_limit": min(
            abs(score - threshold) for score in scores for threshold in (thresholds.reinspect, thresholds.reject)
        ),
    }


def largest_difference(first: Sequence[ProgramDecision], second: Sequence[ProgramDecision]) -> float:
    """Largest difference between two programs' scores of an image that both could read; the C++ program prints six digits."""
    pairs = [(a.score, b.score) for a, b in zip(first, second, strict=True)]
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def linked_opencv() -> str:
    """The OpenCV library of the C++ program, which may decode images differently from the wheel's OpenCV in Python."""
    result = subprocess.run(["ldd", PROGRAM], capture_output=True, text=True, check=True)
    return next(Path(line.split()[2]).resolve().name for line in result.stdout.splitlines() if "opencv_core" in line)


def content_of(rows: list[dict[str, Any]]) -> Content:
    # Only file names are published, not the machine's folders.
    command = f"python -m benchmarks.agreement {' '.join(dict.fromkeys(row['artifact'] for row in rows))}"
    machine = environment("cpu") | {"command": command, "linked_opencv": linked_opencv()}
    machine["packages"] |= installed_versions(["openvino"])
    return {"environment": machine, "rows": rows}


def page(content: Content) -> str:
    machine, rows = content["environment"], content["rows"]
    packages = machine["packages"]
    images, differ = sum(row["images"] for row in rows), sum(len(row["differ"]) for row in rows)
    lines = [
        "# Three programs, one decision",
        "",
        f"Written by `{machine['command']}`, {machine['started'][:10]}, commit {machine['commit']}: ONNX Runtime "
        f"{packages.get('onnxruntime')} and OpenVINO {packages.get('openvino')} in Python with OpenCV "
        f"{packages['opencv-python-headless']}, the C++ program with "
        f"`{machine['linked_opencv']}` and the same ONNX Runtime; one thread. All test images, each with its category's own "
        f"thresholds. **{differ} of {images} decisions differ.**",
        "",
        "A score is on the scale where 1.0 is the pooled reject threshold; the C++ program prints six digits of it. The last column "
        "is the smallest distance of a score from a threshold: a smaller difference cannot change a decision.",
        "",
        "| artifact | category | images | OK / RE-INSPECT / NG | decisions that differ | largest score difference to ONNX Runtime: "
        + ", ".join(TITLES[name] for name in COMPARED)
        + " | refused by any | smallest distance to a threshold |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        counts = " / ".join(str(row["decisions"][REFERENCE].get(str(decision), 0)) for decision in Decision)
        largest = ", ".join(f"{row['largest'][name]:.1e}" for name in COMPARED)
        lines.append(
            f"| {row['artifact']} | {row['category']} | {row['images']} | {counts} | {len(row['differ'])} | {largest} | "
            f"{max(row['unread'].values())} | {row['nearest_to_a_limit']:.1e} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path, help="ONNX artifacts, or runs' folders")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not PROGRAM.is_file():
        raise SystemExit("the C++ program is not built: make cpp")
    rows = []
    for path in arguments.artifacts:
        artifact = RunFolder(path).artifact() if path.is_dir() else path
        categories = [name for name in SETS if name in Inspector(artifact).card.categories]
        if not categories:
            raise SystemExit(f"{artifact}: has none of the categories {', '.join(SETS)}")
        rows += [compare(artifact, category) for category in categories]
    publish("agreement", content_of(rows), page, arguments.results)
    if any(row["differ"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
