"""What the Studio writes down of a training, beside the run itself, so that it finds it again after its own restart.

Unusual here: the command is written for people only. A resume builds it again from the order, so that a record which came
with somebody else's run starts nothing that this Studio's own rules would not allow.
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
LARGEST = 1 << 20
LATEST = 1e11
"""Seconds since the epoch: later moments have no date."""
Moment = Annotated[float, Field(ge=0, lt=LATEST, allow_inf_nan=False)]


class State(StrEnum):
    """Where a training stands, in the words that a person reads."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    """Begun by somebody else, for example on the command line; it may be running or not."""


BUSY = (State.RUNNING, State.STOPPING)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a person asks for."""

    data: str
    """A folder, by its name below the Studio's root."""
    recipe: str
    name: str = ""
    """Of the run; empty: made from data and recipe."""
    quick: bool = False
    seed: int = 0


def check_order(order: Order) -> None:
    """Refuse an order that could not be read back from a record: a client may send any type."""
    try:
        TypeAdapter(Order).validate_json(json.dumps(asdict(order)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc'])) or 'training'}: {first['msg']}") from None


class Record(BaseModel):
    """One training: what was asked, and the process that does it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    name: str
    order: Order
    asked: Moment
    """When, in seconds since the epoch; who asked first is served first."""
    command: list[str] = []
    attempt: int = Field(0, ge=0, lt=2**31)
    pid: int | None = Field(None, gt=1, lt=2**31)
    born: str = ""
    """The process's birth: the id alone may be somebody else's by now."""
    began: Moment | None = None
    stop_asked: Moment | None = None
    exit_code: int | None = Field(None, gt=-(2**31), lt=2**32)
    """Negative for a signal; None while it runs, or where the Studio was away when it ended."""
    problem: str = ""
    """Why it could not even be started."""

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write.write_text(folder / RECORD, self.model_dump_json(indent=1) + "\n")


def read_record(folder: Path) -> Record | None:
    """The record in a run's folder, if there is one that can be understood and speaks of this folder."""
    try:
        record = Record.model_validate_json(read_plain_file(folder / RECORD, "record", LARGEST, follow_links=False))
    except (OSError, BadInput, ValidationError):
        return None
    # A folder that was copied or renamed took the record of another run along.
    return record if record.name == folder.name else None
