"""Targets that fail on purpose, to test that the harness reports it."""

from __future__ import annotations

import ctypes
import os
import time
from random import Random

from inspect_kd.errors import BadInput
from tests.fuzzing.targets import Target


class Faulty(Target):
    """Has a fault on one input in eight, refuses three in eight and accepts the others."""

    def __init__(self, sandbox: object) -> None:
        super().__init__(sandbox)  # type: ignore[arg-type]
        self.leaked: list[bytes] = []

    def warm_up(self) -> None: ...

    def make(self, rng: Random) -> bytes:
        return rng.randbytes(8)

    def feed(self, data: bytes) -> None:
        # The fault depends on the input alone, so that a repeated input fails again.
        if data[0] < 32:
            self.fault()
        elif data[0] < 128:
            raise BadInput("refused, as it should be")

    def fault(self) -> None: ...


class Crash(Faulty):
    def fault(self) -> None:
        ctypes.string_at(0)


class Busy(Faulty):
    def fault(self) -> None:
        while True:
            pass


class Blocked(Faulty):
    def fault(self) -> None:
        time.sleep(3600)


class Memory(Faulty):
    """Uses 600 MB, more than the limit of a test of the harness."""

    def fault(self) -> None:
        bytearray(600 * 2**20)


class Denied(Faulty):
    """Requests more memory than the system has, and hides the MemoryError."""

    def fault(self) -> None:
        try:
            bytearray(2**44)
        except MemoryError as error:
            raise BadInput("broken") from error


class Outside(Faulty):
    def fault(self) -> None:
        (self.bait / "secret.bin").read_bytes()


class OutsideNative(Faulty):
    """Opens a file through the C library, which audit hooks do not report."""

    def fault(self) -> None:
        libc = ctypes.CDLL(None)
        os.close(libc.open(os.fsencode(self.bait / "secret.bin"), os.O_RDONLY))


class Raises(Faulty):
    def fault(self) -> None:
        raise ValueError("not an error of the program")


class Leak(Faulty):
    """Keeps some memory of every input."""

    def feed(self, data: bytes) -> None:
        time.sleep(0.001)
        self.leaked.append(bytes(data[:1]) * 96 * 2**10)


FAULTY: dict[str, type[Faulty]] = {target.__name__.lower(): target for target in Faulty.__subclasses__()}
