"""Do ONNX Runtime in Python, OpenVINO in Python and the C++ program decide alike? On all test images of the real categories.

    make cpp
    INSPECT_KD_REAL_DATA=… python benchmarks/agreement.py ARTIFACT_OR_RUN …

Each image is asked with its category's own thresholds. Writes docs/results/agreement.{json,md}; exit 1 where a decision differs.
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

from real_data import RESULTS, ROOT, SETS, load

from inspect_kd.errors import BadInput
from inspect_kd.inspector import Inspector
from inspect_kd.train.run import RunFolder, environment
from inspect_kd.types import Decision, Split
from inspect_kd.versions import installed

PROGRAM = ROOT / "build" / "cpp" / "inspect_kd_cpp"
FIRST, OTHERS = "onnx", ("openvino", "c++")
TITLES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "c++": "C++"}


class Said(NamedTuple):
    """What one program says of one image; a refusal is NG without a score."""

    decision: str
    score: float | None


def ask_python(artifact: Path, category: str, images: Sequence[Path]) -> list[Said]:
    """By the runtime that the file's name asks for."""
    inspect = Inspector(artifact, category=category)
    return [
        Said(str(Decision.NG), None) if isinstance(answer, BadInput) else Said(str(answer.decision), answer.score)
        for answer in inspect.each(images)
    ]


def ask_cpp(artifact: Path, category: str, images: Sequence[Path]) -> list[Said]:
    words = [PROGRAM, artifact, "--category", category, *images]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    if len(lines) != len(images):
        raise SystemExit(f"{PROGRAM.name} gave {len(lines)} lines for {len(images)} images: {answer.stderr[-500:]}")
    return [Said(line["decision"], line.get("score")) for line in lines]


def compare(artifact: Path, category: str) -> dict[str, Any]:
    """One artifact on one category's test images."""
    images = [sample.image for sample in load([category], "omni_ad").select(Split.TEST)]
    with tempfile.TemporaryDirectory() as folder:
        # The same bytes under the name by which OpenVINO is asked for.
        renamed = Path(shutil.copy(artifact, Path(folder) / "artifact.openvino.onnx"))
        said = {
            "onnx": ask_python(artifact, category, images),
            "openvino": ask_python(renamed, category, images),
            "c++": ask_cpp(artifact, category, images),
        }
    inspect = Inspector(artifact, category=category)
    limits = (inspect.thresholds.reinspect, inspect.thresholds.reject)
    differ = [
        {"image": image.name, **{name: said[name][number]._asdict() for name in said}}
        for number, image in enumerate(images)
        if len({said[name][number].decision for name in said}) > 1
    ]
    scores = [answer.score for answer in said[FIRST] if answer.score is not None]
    return {
        "artifact": artifact.name,
        "category": category,
        "images": len(images),
        "decisions": {name: dict(Counter(answer.decision for answer in answers)) for name, answers in said.items()},
        "unread": {name: sum(answer.score is None for answer in answers) for name, answers in said.items()},
        "differ": differ,
        "largest": {name: largest_difference(said[FIRST], said[name]) for name in OTHERS},
        # What a difference would have to reach before it could move a decision.
        "nearest_to_a_limit": min(abs(score - limit) for score in scores for limit in limits),
    }


def largest_difference(first: Sequence[Said], second: Sequence[Said]) -> float:
    """Between scores, where both gave one; the C++ program prints six digits."""
    pairs = [(a.score, b.score) for a, b in zip(first, second, strict=True)]
    return max((abs(a - b) for a, b in pairs if a is not None and b is not None), default=0.0)


def linked_opencv() -> str:
    """The C++ program's own: it makes the pixels there, the wheel's makes them in Python."""
    answer = subprocess.run(["ldd", PROGRAM], capture_output=True, text=True, check=True)
    return next(Path(line.split()[2]).resolve().name for line in answer.stdout.splitlines() if "opencv_core" in line)


def write(rows: list[dict[str, Any]], results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    # Where the artifacts lie on this machine is nobody's business.
    command = f"python benchmarks/agreement.py {' '.join(dict.fromkeys(row['artifact'] for row in rows))}"
    machine = environment("cpu") | {"command": command, "linked_opencv": linked_opencv()}
    machine["packages"] |= installed(["openvino"])
    (results / "agreement.json").write_text(json.dumps({"environment": machine, "rows": rows}, indent=1) + "\n")
    packages = machine["packages"]
    images, differ = sum(row["images"] for row in rows), sum(len(row["differ"]) for row in rows)
    lines = [
        "# Three programs, one decision",
        "",
        f"Written by `{command}`, {machine['started'][:10]}, commit {machine['commit']}: ONNX Runtime {packages.get('onnxruntime')} "
        f"and OpenVINO {packages.get('openvino')} in Python with OpenCV {packages['opencv-python-headless']}, the C++ program with "
        f"`{machine['linked_opencv']}` and the same ONNX Runtime; one thread. All test images, each with its category's own "
        f"thresholds. **{differ} of {images} decisions differ.**",
        "",
        "A score is on the scale where 1.0 is the pooled reject threshold; the C++ program prints six digits of it. The last column "
        "is how near a score came to a limit: a smaller difference cannot move a decision.",
        "",
        "| artifact | category | images | OK / RE-INSPECT / NG | decisions that differ | largest score difference to ONNX Runtime: "
        + ", ".join(TITLES[name] for name in OTHERS)
        + " | refused by any | nearest to a limit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        counts = " / ".join(str(row["decisions"][FIRST].get(str(decision), 0)) for decision in Decision)
        largest = ", ".join(f"{row['largest'][name]:.1e}" for name in OTHERS)
        lines.append(
            f"| {row['artifact']} | {row['category']} | {row['images']} | {counts} | {len(row['differ'])} | {largest} | "
            f"{max(row['unread'].values())} | {row['nearest_to_a_limit']:.1e} |"
        )
    (results / "agreement.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path, help="ONNX artifacts, or runs' folders")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not PROGRAM.is_file():
        raise SystemExit("the C++ program is not built: make cpp")
    rows = []
    for given in arguments.artifacts:
        artifact = RunFolder(given).artifact() if given.is_dir() else given
        categories = [name for name in SETS if name in Inspector(artifact).card.categories]
        if not categories:
            raise SystemExit(f"{artifact}: knows none of {', '.join(SETS)}")
        rows += [compare(artifact, category) for category in categories]
    write(rows, arguments.results)
    if any(row["differ"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
