"""Write and read the report's pictures as data: `pictures.jsonl` beside the page, one line per part.

A reader can take the first lines without the others, so that an untrusted run causes little work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from inspect_kd import atomic_write, strict_json
from inspect_kd.errors import BadInput
from inspect_kd.plain_file import open_plain_file
from inspect_kd.report.pictures import Example
from inspect_kd.types import NOT_FOUND, Decision

FILE_NAME = "pictures.jsonl"
MAX_LINE_BYTES = 1 << 20
IMAGE_PREFIX = "data:image/"
TEXT_KEYS = ("image", "category", "kind", "original", "heated")
"""Keys of a line whose values must be text, in the order in which `_parse` reads them."""


def write_pictures(examples: Mapping[str, Sequence[Example]], to: Path) -> None:
    """Write one line for each example, in the order of the page."""
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in _records(examples))
    atomic_write.write_text(to, "".join(lines))


def _records(examples: Mapping[str, Sequence[Example]]) -> Iterable[dict[str, object]]:
    for heading, chosen in examples.items():
        for example in chosen:
            yield {
                "heading": heading,
                "image": example.name,
                "category": example.category,
                "kind": example.kind,
                "score": round(example.score, 6),
                "decision": str(example.decision),
                "original": example.image_uri,
                "heated": example.heatmap_uri,
                **({"cause": NOT_FOUND, "explanation": example.explanation} if example.explanation else {}),
            }


def read_pictures(run: Path, max_lines: int) -> list[Example]:
    """Read the examples in the first `max_lines` lines of a run's file; empty without a file. Malformed lines are skipped."""
    examples: list[Example] = []
    try:
        with open_plain_file(run / FILE_NAME, "pictures of a report", follow_links=False) as file:
            for _ in range(max_lines):
                example = _parse(file.readline(MAX_LINE_BYTES))
                if example is not None:
                    examples.append(example)
    except (OSError, BadInput):
        return []
    return examples


def _parse(line: bytes) -> Example | None:
    try:
        record = strict_json.loads(line, file_names=True)
        name, category, kind, image_uri, heatmap_uri = (_check_text(record[key]) for key in TEXT_KEYS)
        score, decision = float(record["score"]), Decision(record["decision"])
        explanation = _check_text(record["explanation"]) if "explanation" in record else None
    except (ValueError, KeyError, TypeError):
        return None
    # Accept embedded images only: a browser would fetch any other address.
    if not all(uri.startswith(IMAGE_PREFIX) for uri in (image_uri, heatmap_uri)):
        return None
    return Example(
        name=name,
        category=category,
        kind=kind,
        score=score,
        decision=decision,
        image_uri=image_uri,
        heatmap_uri=heatmap_uri,
        explanation=explanation,
    )


def _check_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not text")
    return value
