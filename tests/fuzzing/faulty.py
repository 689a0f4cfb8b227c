"""Targets that fail on purpose, to test that the harness notices."""

from __future__ import annotations

import ctypes
import os
import time
from random import Random

from inspect_kd.errors import BadInput
from tests.fuzzing.targets import Target


class Faulty(Target):
    def __init__(self, room: object) -> None:
        super().__init__(room)  # type: ignore[arg-type]
        self.kept: list[bytes] = []

    def warm_up(self) -> None: ...

    def make(self, rng: Random) -> bytes:
        return rng.randbytes(8)

    def feed(self, data: bytes) -> None:
        # Depends on the input only, so that a repeated input fails again.
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
    def fault(self) -> None:
        bytearray(600 * 2**20)


class Denied(Faulty):
    """Requests more memory than there is, and hides the MemoryError."""

    def fault(self) -> None:
        try:
            bytearray(2**44)
        except MemoryError as error:
            raise BadInput("broken") from error


class Outside(Faulty):
    def fault(self) -> None:
        (self.bait / "secret.bin").read_bytes()


class OutsideNative(Faulty):
    """Opens a file like a C library, unseen by audit hooks."""

    def fault(self) -> None:
        libc = ctypes.CDLL(None)
        os.close(libc.open(os.fsencode(self.bait / "secret.bin"), os.O_RDONLY))


class Raises(Faulty):
    def fault(self) -> None:
        raise ValueError("not an error of the program")


class Leak(Faulty):
    def feed(self, data: bytes) -> None:
        time.sleep(0.001)
        self.kept.append(bytes(data[:1]) * 96 * 2**10)


FAULTY: dict[str, type[Faulty]] = {each.__name__.lower(): each for each in Faulty.__subclasses__()}
