"""The report's pictures as data, `pictures.jsonl` beside the page: a JSON line a part, with both pictures as data URIs.

The first lines can be read without the rest, which bounds the work for a run that somebody else made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from inspect_kd import atomic_write, strict_json
from inspect_kd.errors import BadInput
from inspect_kd.plain_file import open_plain_file
from inspect_kd.report.pictures import Example
from inspect_kd.types import Decision

FILE_NAME = "pictures.jsonl"
MAX_LINE_BYTES = 1 << 20
IMAGE_PREFIX = "data:image/"
TEXTS = ("image", "category", "kind", "original", "heated")


def write_pictures(examples: Mapping[str, Sequence[Example]], to: Path) -> None:
    """Write one line for each example, in the order of the page."""
    lines = (json.dumps(each, ensure_ascii=False) + "\n" for each in _records(examples))
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
                "original": example.original,
                "heated": example.heated,
            }


def read_pictures(run: Path, most: int) -> list[Example]:
    """The first pictures of a run's report, empty where the run has no such file. Malformed lines are skipped."""
    examples: list[Example] = []
    try:
        with open_plain_file(run / FILE_NAME, "pictures of a report", follow_links=False) as file:
            for _ in range(most):
                example = _parse(file.readline(MAX_LINE_BYTES))
                if example is not None:
                    examples.append(example)
    except (OSError, BadInput):
        return []
    return examples


def _parse(line: bytes) -> Example | None:
    try:
        record = strict_json.loads(line, file_names=True)
        name, category, kind, original, heated = (_text(record[key]) for key in TEXTS)
        score, decision = float(record["score"]), Decision(record["decision"])
    except (ValueError, KeyError, TypeError):
        return None
    # A browser would fetch an address of another host.
    if not all(image.startswith(IMAGE_PREFIX) for image in (original, heated)):
        return None
    return Example(
        name=name, category=category, kind=kind, score=score, decision=decision, original=original, heated=heated
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not text")
    return value
