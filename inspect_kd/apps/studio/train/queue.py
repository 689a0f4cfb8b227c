"""The queue of a Studio: the trainings that its users have requested and that have not started yet.

The queue is stored outside the runs' folders. A folder from another person may hold the record of a waiting training, which must not
start here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from inspect_kd import atomic_write
from inspect_kd.apps.studio.train.record import TrainingRecord
from inspect_kd.errors import BadInput
from inspect_kd.plain_file import read_plain_file

MAX_BYTES = 1 << 20
_CONTENT = TypeAdapter(dict[str, float])


class TrainingQueue:
    """Names of waiting trainings, with the time of each request, in `<store>/queue-<digest of the runs' folder>.json`."""

    def __init__(self, store: Path, runs: Path) -> None:
        digest = hashlib.sha256(str(runs).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.path = store.resolve() / f"queue-{digest}.json"
        try:
            content = read_plain_file(self.path, "queue of trainings", MAX_BYTES, follow_links=False)
            self.requested_at = _CONTENT.validate_json(content)
        except (OSError, BadInput, ValidationError):  # usually there is none yet
            self.requested_at = {}

    def __contains__(self, record: TrainingRecord) -> bool:
        return self.requested_at.get(record.name) == record.requested_at

    def add(self, record: TrainingRecord) -> None:
        """Remember a request; a later one for the same run replaces it."""
        self.requested_at[record.name] = record.requested_at
        self._write()

    def remove(self, name: str) -> None:
        """Forget a training that has started or was stopped."""
        if self.requested_at.pop(name, None) is not None:
            self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write.write_bytes(self.path, _CONTENT.dump_json(self.requested_at))
