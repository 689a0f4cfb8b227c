"""The Studio's record of a training, kept in the run's folder, so that a restarted Studio finds the training again.

Unusual here: the command is stored for people only. A resume builds it again from the request, so that a record in somebody else's
run cannot start anything that this Studio's own rules refuse. The JSON keys are the aliases of the fields.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from inspect_kd import atomic_write
from inspect_kd.errors import BadInput, UsageError
from inspect_kd.plain_file import read_plain_file

RECORD, LOG = "training.json", "training.log"
MAX_BYTES = 1 << 20
"""Limit of a record's size."""
MAX_TIME = 1e11
"""Latest accepted time, in seconds since the epoch (the year 5138): far later times cannot be shown as a date."""
Timestamp = Annotated[float, Field(ge=0, lt=MAX_TIME, allow_inf_nan=False)]


class State(StrEnum):
    """The state of a training."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"
    EXTERNAL = "unfinished"
    """Started outside the Studio and not complete; it may still be running."""


BUSY = (State.RUNNING, State.STOPPING)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRequest:
    """What to train, as a person or a program asks for it."""

    data: str
    """A folder, by its name below the Studio's data folder."""
    recipe: str
    name: str = ""
    """The run's name; if empty, it is made from data and recipe."""
    quick: bool = False
    seed: int = 0


def check_request(request: TrainRequest) -> None:
    """Refuse a request that could not be read back from a record: a client may send any type."""
    try:
        TypeAdapter(TrainRequest).validate_json(json.dumps(asdict(request)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc'])) or 'training'}: {first['msg']}") from None


class TrainingRecord(BaseModel):
    """A request, and the process that runs it. Times are seconds since the epoch."""

    model_config = ConfigDict(extra="ignore", strict=True, populate_by_name=True)

    name: str
    request: TrainRequest = Field(alias="order")
    requested_at: Timestamp = Field(alias="asked")
    """The earliest request is started first."""
    command: list[str] = []
    attempt: int = Field(0, ge=0, lt=2**31)
    pid: int | None = Field(None, gt=1, lt=2**31)
    process_birth: str = Field("", alias="born")
    """Start time of the process; with the pid, which may be reused, it identifies the process."""
    started_at: Timestamp | None = Field(None, alias="began")
    stop_requested_at: Timestamp | None = Field(None, alias="stop_asked")
    exit_code: int | None = Field(None, gt=-(2**31), lt=2**32)
    """Exit code of the process, negative for a signal; None while it runs, or if it ended while no Studio was running."""
    problem: str = ""
    """Why the process could not be started."""

    def write(self, folder: Path) -> None:
        """Write the record into a run's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write.write_text(folder / RECORD, self.model_dump_json(indent=1, by_alias=True) + "\n")


def read_record(folder: Path) -> TrainingRecord | None:
    """Read the record in a run's folder; None where there is no valid one for this folder."""
    try:
        content = read_plain_file(folder / RECORD, "record", MAX_BYTES, follow_links=False)
        record = TrainingRecord.model_validate_json(content)
    except (OSError, BadInput, ValidationError):
        return None
    # A folder that was copied or renamed still contains the record of another run.
    return record if record.name == folder.name else None
