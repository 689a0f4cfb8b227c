"""The base class of fuzzing targets."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random

from inspect_kd.errors import InspectKDError
from tests.fuzzing.watch import make_bait


class Target:
    """Makes random inputs and feeds them to a function of the program, in its own folder `sandbox`."""

    native = False
    """True if the worker itself runs a native parser; the quarantine must then refuse inputs that break it."""

    cpu_s = 5
    """CPU seconds that an input may take."""

    def __init__(self, sandbox: Path) -> None:
        self.sandbox = sandbox
        self.bait = make_bait(sandbox.parent)

    def warm_up(self) -> None:
        """Feed an input that does not count, because the first one also imports modules."""
        with contextlib.suppress(InspectKDError):
            self.feed(self.make(Random("the first")))

    def make(self, rng: Random) -> bytes:
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        raise NotImplementedError
