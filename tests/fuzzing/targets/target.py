"""What every target has: a folder to work in, a way to make an input from chance alone, and a door to put it through."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random

from inspect_kd.errors import InspectKDError
from tests.fuzzing.watch import lay_bait


class Target:
    """A folder of its own to work in, a way to make an input from chance alone, and the door that it is put through."""

    native = False
    """A runtime's parser runs in the process: what breaks it must be shown to end well in the quarantine."""

    cpu_s = 5
    """Seconds of the processor that an input may take."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.bait = lay_bait(room.parent)

    def warm_up(self) -> None:
        """What is imported and built at the first input belongs to no input."""
        with contextlib.suppress(InspectKDError):
            self.feed(self.make(Random("the first")))

    def make(self, rng: Random) -> bytes:
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        raise NotImplementedError
