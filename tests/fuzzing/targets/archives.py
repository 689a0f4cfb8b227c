"""Archives of data sets."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path
from random import Random

from tests.fuzzing.mutate import damaged
from tests.fuzzing.targets.target import Target


class Archives(Target):
    """Archives of data sets, zip and tar."""

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        self.seeds = [
            _zip(method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        ]
        self.seeds += [_tar(packing) for packing in ("", "gz", "bz2", "xz")]

    def make(self, rng: Random) -> bytes:
        if rng.random() < 0.8:
            return damaged(rng, rng.choice(self.seeds), rng.choice(self.seeds))
        names = (
            "../x",
            "/x",
            "a/../../x",
            "..\\x",
            "a\x00b",
            "x" * 300,
            "a/b",
            "C:\\x",
            "",
            "a\n",
            "./../../outside/secret.png",
        )
        if rng.random() < 0.5:
            return _zip(zipfile.ZIP_DEFLATED, rng.choice(names))
        kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.REGTYPE, tarfile.DIRTYPE)
        return _tar(rng.choice(("", "gz")), rng.choice(names), rng.choice(kinds))

    def feed(self, data: bytes) -> None:
        from inspect_kd.datasets.fetch import unpack
        from inspect_kd.types import NoProgress

        packed, to = self.room / "packed", self.room / "unpacked"
        packed.write_bytes(data)
        if to.is_dir():
            shutil.rmtree(to)
        to.mkdir()
        before = sorted(path.name for path in self.room.iterdir())
        unpack(packed, to, NoProgress())
        assert sorted(path.name for path in self.room.iterdir()) == before, "something was written beside the folder"
        assert not any(path.is_symlink() for path in to.rglob("*"))


def _zip(method: int, name: str = "good/0.png") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo(name), b"picture" * 30, compress_type=method)
        archive.writestr("bad/1.png", b"other" * 30)
    return file.getvalue()


def _tar(packing: str, name: str = "good/0.png", kind: bytes = tarfile.REGTYPE) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{packing}") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "../../outside/secret.png"
        member.size = 210 if kind == tarfile.REGTYPE else 0
        archive.addfile(member, io.BytesIO(b"picture" * 30))
    return file.getvalue()
