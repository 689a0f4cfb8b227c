"""The files of a benchmark's results: the metrics as JSON, and a page that is written from the JSON alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
Content = dict[str, Any]


def load_results(name: str) -> Content:
    """Load a benchmark's published results; an empty dict before its first run."""
    path = RESULTS / f"{name}.json"
    content: Content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content


def publish(name: str, content: Content, page: Callable[[Content], str], folder: Path = RESULTS) -> None:
    """Write <name>.json and <name>.md, and print the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    text = page(content)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
