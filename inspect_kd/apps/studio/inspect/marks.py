"""People's marks on parts (OK or NG), stored for the next training and for `label-next`.

`<store>/marked/<category>/good|defect/<name>-<digest>.<suffix>` are the original files; `<store>/marks.jsonl` records who marked what
and when, and the artifact's own decision. `train --labelled <store>/marked/<category>` and `label-next --known` read them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from inspect_kd import atomic_write
from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.inspect.parts import Part, StoredMark
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.sign_off import MAX_NAME_LENGTH
from inspect_kd.types import NOT_FOUND, Decision, Thresholds

FOLDERS = {Decision.OK: "good", Decision.NG: "defect"}
MIN_FREE_MB = 1024
"""A mark is stored only if this space is free on the disk, since marks outlive a session and are not limited in number."""
MAX_FOLDER_LENGTH = 100
_FIRST_BYTES = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"RIFF": ".webp",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MarkContext:
    """Who made a mark, and under which artifact and thresholds."""

    artifact: str
    artifact_sha256: str
    category: str | None
    thresholds: Thresholds
    by: str = ""

    def __post_init__(self) -> None:
        if len(self.by) > MAX_NAME_LENGTH or not self.by.isprintable():
            raise UsageError(f"a mark is stored with a name of at most {MAX_NAME_LENGTH} printable characters")


class MarkStore:
    """Marks in one folder."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._lock = Lock()
        self._marks: dict[Path, set[StoredMark]] = {}
        """The marks that each image is stored for: it is removed with the last one."""

    def folder(self, context: MarkContext) -> Path:
        """The folder for a category, or for the artifact where no category is chosen."""
        return self.store / "marked" / _folder_name(context.category or context.artifact)

    def put(self, part: Part, mark: Decision, context: MarkContext) -> Path:
        """Store a mark. It replaces the part's former mark, and the opposite mark of the same image in this category."""
        if mark not in FOLDERS:
            raise BadInput(f"a mark is OK or NG, not {mark}")
        content = part.original.read_bytes()
        with self._lock:
            self._check_room()
            path = self._path(part, mark, context, content)
            path.parent.mkdir(parents=True, exist_ok=True)
            stored_before = path.exists() and path not in self._marks  # by a Studio that has ended since
            # Record the mark before the image gets its final name: no image may be trained on without a record of who marked it.
            with atomic_write.partial_file(path) as partial:
                partial.write(content)
                partial.flush()
                self._record(part, str(mark), context, str(path.relative_to(self.store)))
            stored = StoredMark(path)
            self._marks.setdefault(path, {StoredMark(path)} if stored_before else set()).add(stored)
            self._release(part.stored_mark)
            self._remove_opposite(part, mark, context)
        part.mark, part.stored_mark = mark, stored
        return path

    def take_back(self, part: Part, context: MarkContext) -> bool:
        """Take the part's mark back, and record that. Return False if its image stays stored, because of another mark."""
        with self._lock:
            stored = part.stored_mark
            is_shared = stored is not None and bool(self._marks.get(stored.file, set()) - {stored})
            file = str(stored.file.relative_to(self.store)) if stored is not None and is_shared else None
            self._record(part, None, context, file)
            self._release(stored)
        part.mark, part.stored_mark = None, None
        return not is_shared

    def _check_room(self) -> None:
        self.store.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.store).free < MIN_FREE_MB * 2**20:
            raise EnvironmentFault(texts.NO_ROOM_FOR_MARK.format(mb=MIN_FREE_MB, store=self.store))

    def _release(self, stored: StoredMark | None) -> None:
        """Remove a mark's image, unless another mark needs it."""
        marks = self._marks.get(stored.file, set()) if stored is not None else set()
        if stored is None or stored not in marks:
            return
        marks.remove(stored)
        if not marks:
            self._remove_image(stored.file)

    def _remove_opposite(self, part: Part, mark: Decision, context: MarkContext) -> None:
        """Remove the image from the folder of the opposite mark: no image may be trained on as both sound and defective."""
        opposite = next(folder for decision, folder in FOLDERS.items() if decision is not mark)
        for path in (self.folder(context) / opposite).glob(f"*-{part.sha256[:12]}.*"):
            self._remove_image(path)

    def _remove_image(self, path: Path) -> None:
        self._marks.pop(path, None)
        path.unlink(missing_ok=True)

    def _path(self, part: Part, mark: Decision, context: MarkContext, content: bytes) -> Path:
        # The digest comes last: a file whose name ends in "_mask" would be taken for a mask.
        name = f"{_file_name(Path(part.name).stem)[:60] or 'part'}-{part.sha256[:12]}{_suffix(content)}"
        return self.folder(context) / FOLDERS[mark] / name

    def _record(self, part: Part, mark: str | None, context: MarkContext, file: str | None) -> None:
        line = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "by": context.by,
            "verdict": mark,
            "decision": str(context.thresholds.decide(part.score)),
            "score": round(part.score, 6),
            **({"cause": NOT_FOUND} if part.location.not_found else {}),
            "thresholds": {"reinspect": context.thresholds.reinspect, "reject": context.thresholds.reject},
            "image": part.name,
            "sha256": part.sha256,
            "file": file,
            "artifact": context.artifact,
            "artifact_sha256": context.artifact_sha256,
            "category": context.category,
        }
        # A file's name may contain bytes that are not UTF-8 (lone surrogates here); JSON escapes them as Python does.
        text = json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        with (self.store / "marks.jsonl").open("ab", buffering=0) as journal:
            end = journal.seek(0, os.SEEK_END)
            if journal.write(text) < len(text):
                journal.truncate(end)
                raise EnvironmentFault(f"{self.store}: no room for one more line of marks.jsonl; make room on the disk")


def _file_name(text: str) -> str:
    """Replace everything but letters, digits, `_` and `-`; the result never names a hidden file."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-")


def _folder_name(text: str) -> str:
    """A folder's name for a category; where it differs from the category, a digest keeps two categories apart."""
    name = _file_name(text)[:MAX_FOLDER_LENGTH]
    return (
        name if name == text else f"{name or 'parts'}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"
    )


def _suffix(content: bytes) -> str:
    """The suffix of the content's image format; the uploaded name may have a wrong one."""
    return next((suffix for start, suffix in _FIRST_BYTES.items() if content.startswith(start)), ".png")
