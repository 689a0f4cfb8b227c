"""The base class of fuzzing targets."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random

from inspect_kd.errors import InspectKDError
from tests.fuzzing.watch import lay_bait


class Target:
    """Makes random inputs and feeds them to a function of the program, in a folder of its own."""

    native = False
    """True if a native parser runs in the process; inputs that break it must be refused by the quarantine."""

    cpu_s = 5
    """CPU seconds that an input may take."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.bait = lay_bait(room.parent)

    def warm_up(self) -> None:
        """Feed a first input, so that imports count towards none of the others."""
        with contextlib.suppress(InspectKDError):
            self.feed(self.make(Random("the first")))

    def make(self, rng: Random) -> bytes:
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        raise NotImplementedError
