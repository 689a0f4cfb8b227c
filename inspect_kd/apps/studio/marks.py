"""What people say of parts, stored so that the next training can learn from it and `label-next` need not ask again.

<store>/marked/<category>/good|defect/<name>-<digest>.png, the original's own bytes; <store>/marks.jsonl tells who said
what, when, and what the artifact had said. `train --labelled <store>/marked/<category>` and `label-next --known` read it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from inspect_kd import atomic_write
from inspect_kd.apps.studio.parts import Part
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.sign_off import LONGEST_NAME
from inspect_kd.types import Decision, Thresholds

FOLDERS = {Decision.OK: "good", Decision.NG: "defect"}
_HEADS = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"RIFF": ".webp",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """Under what the call was made."""

    artifact: str
    sha256: str
    category: str | None
    thresholds: Thresholds
    by: str = ""

    def __post_init__(self) -> None:
        if len(self.by) > LONGEST_NAME or not self.by.isprintable():
            raise UsageError(f"a mark is stored with a name of at most {LONGEST_NAME} printable characters")


class MarkBook:
    def __init__(self, store: Path) -> None:
        self.store = store
        self._lock = Lock()

    def folder(self, context: Context) -> Path:
        """Of one kind of part, or of the artifact where nobody has said which kind."""
        return self.store / "marked" / (_plain(context.category or context.artifact) or "parts")

    def put(self, part: Part, verdict: Decision, context: Context) -> Path:
        """Store a verdict; an earlier one of the same image gives way. The same verdict twice is stored once."""
        if verdict not in FOLDERS:
            raise BadInput(f"a person says OK or NG, not {verdict}")
        content = part.original.read_bytes()
        with self._lock:
            path = self._path(part, verdict, context, content)
            path.parent.mkdir(parents=True, exist_ok=True)
            # The line before the image: what trains without a line has no author.
            with atomic_write.partial_file(path) as partial:
                partial.write(content)
                partial.flush()
                self._note(part, str(verdict), context, str(path.relative_to(self.store)))
            self._withdraw(part, context, but=path)
        part.mark = verdict
        return path

    def take_back(self, part: Part, context: Context) -> None:
        with self._lock:
            self._note(part, None, context, None)
            self._withdraw(part, context)
        part.mark = None

    def _withdraw(self, part: Part, context: Context, but: Path | None = None) -> None:
        for name in FOLDERS.values():
            for path in (self.folder(context) / name).glob(f"*-{part.sha256[:12]}.*"):
                if path != but:
                    path.unlink()

    def _path(self, part: Part, verdict: Decision, context: Context, content: bytes) -> Path:
        # The digest comes last: a name that ends in "_mask" would be taken for a mask.
        name = f"{_plain(Path(part.name).stem)[:60] or 'part'}-{part.sha256[:12]}{_suffix(content)}"
        return self.folder(context) / FOLDERS[verdict] / name

    def _note(self, part: Part, verdict: str | None, context: Context, file: str | None) -> None:
        line = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "by": context.by,
            "verdict": verdict,
            "decision": str(context.thresholds.decide(part.score)),
            "score": round(part.score, 6),
            "thresholds": {"reinspect": context.thresholds.reinspect, "reject": context.thresholds.reject},
            "image": part.name,
            "sha256": part.sha256,
            "file": file,
            "artifact": context.artifact,
            "artifact_sha256": context.sha256,
            "category": context.category,
        }
        # A file's name may hold bytes that are no text (lone surrogates here); JSON has the same escape for them as Python.
        text = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with (self.store / "marks.jsonl").open("ab", buffering=0) as journal:
            end = journal.seek(0, os.SEEK_END)
            if journal.write(text) < len(text):
                journal.truncate(end)
                raise EnvironmentFault(f"{self.store}: no room for one more line of marks.jsonl; make room on the disk")


def _plain(text: str) -> str:
    """Fit for a file's name, and never hidden."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-")


def _suffix(content: bytes) -> str:
    """By what is in the file: its name may say anything."""
    return next((suffix for head, suffix in _HEADS.items() if content.startswith(head)), ".png")
