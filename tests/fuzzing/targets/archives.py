"""Zip and tar archives of data sets."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path
from random import Random

from tests.fuzzing.mutate import mutate_bytes
from tests.fuzzing.targets.target import Target


class Archives(Target):
    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        self.seeds = [
            _zip(method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        ]
        self.seeds += [_tar(compression) for compression in ("", "gz", "bz2", "xz")]

    def make(self, rng: Random) -> bytes:
        if rng.random() < 0.8:
            return mutate_bytes(rng, rng.choice(self.seeds), rng.choice(self.seeds))
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

        archive, folder = self.sandbox / "packed", self.sandbox / "unpacked"
        archive.write_bytes(data)
        if folder.is_dir():
            shutil.rmtree(folder)
        folder.mkdir()
        before = sorted(path.name for path in self.sandbox.iterdir())
        unpack(archive, folder, NoProgress())
        assert sorted(path.name for path in self.sandbox.iterdir()) == before, "something was written beside the folder"
        assert not any(path.is_symlink() for path in folder.rglob("*"))


def _zip(method: int, name: str = "good/0.png") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo(name), b"picture" * 30, compress_type=method)
        archive.writestr("bad/1.png", b"other" * 30)
    return file.getvalue()


def _tar(compression: str, name: str = "good/0.png", kind: bytes = tarfile.REGTYPE) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{compression}") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "../../outside/secret.png"
        member.size = 210 if kind == tarfile.REGTYPE else 0
        archive.addfile(member, io.BytesIO(b"picture" * 30))
    return file.getvalue()
