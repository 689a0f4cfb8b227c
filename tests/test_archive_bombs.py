"""Small archives that would take gigabytes of memory, or minutes, are refused."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from itertools import islice, product
from pathlib import Path
from string import ascii_letters

import pytest

from inspect_kd.datasets import bounded_tar, fetch
from inspect_kd.errors import BadInput
from inspect_kd.types import NoProgress

PROGRAM = """
import resource, sys
from pathlib import Path
from inspect_kd.datasets import fetch
from inspect_kd.errors import BadInput
from inspect_kd.types import NoProgress
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    fetch.unpack(Path(sys.argv[1]), Path(sys.argv[2]), NoProgress())
except BadInput as error:
    print(error)
print("grew", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def make_member(name: str, kind: bytes = tarfile.REGTYPE, body: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


def write_tar_gz(path: Path, *members: bytes) -> Path:
    path.write_bytes(gzip.compress(b"".join(members) + bytes(1024)))
    return path


def make_pax_record(key: str, value: str = "") -> bytes:
    """A record of a PAX header, which begins with its own length."""
    text = f" {key}={value}\n".encode()
    return next(
        str(size).encode() + text for size in range(len(text), len(text) + 9) if len(str(size)) + len(text) == size
    )


def unpack_in_child(path: Path, to: Path) -> tuple[str, int]:
    """Unpack in a child process; return its output, and the megabytes by which its memory grew."""
    command = [sys.executable, "-P", "-c", PROGRAM, str(path), str(to)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return output, int(output.split("grew")[1])


def test_zip_of_bzip2_is_refused(tmp_path: Path) -> None:
    """A kilobyte of bzip2 would be unpacked into half a gigabyte at once."""
    compressor = bz2.BZ2Compressor(9)
    content = b"".join(compressor.compress(bytes(2**24)) for _ in range(32)) + compressor.flush()
    claimed_size = 100 * 2**20
    local_entry = (
        struct.pack("<4sHHHHHLLLHH", b"PK\3\4", 46, 0, 12, 0, 0, 0, len(content), claimed_size, 5, 0)
        + b"a.png"
        + content
    )
    central_directory = struct.pack(
        "<4sHHHHHHLLLHHHHHLL", b"PK\1\2", 46, 46, 0, 12, 0, 0, 0, len(content), claimed_size, 5, 0, 0, 0, 0, 0, 0
    )
    central_directory += b"a.png"
    end_record = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 1, 1, len(central_directory), len(local_entry), 0)
    (tmp_path / "a.zip").write_bytes(local_entry + central_directory + end_record)
    output, grown_mb = unpack_in_child(tmp_path / "a.zip", tmp_path / "out")
    assert "'a.png' uses compression method 12; refused" in output and grown_mb < 100


def test_ordinary_zips_are_unpacked(tmp_path: Path) -> None:
    for number, method in enumerate((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
            archive.writestr(f"{number}.png", b"image")
        fetch.unpack(tmp_path / "a.zip", tmp_path / "out", NoProgress())
        assert (tmp_path / "out" / f"{number}.png").read_bytes() == b"image"


def test_many_global_keys_are_refused(tmp_path: Path) -> None:
    """Each global key would be copied into each member."""
    keys = ["".join(letters) for letters in islice(product(ascii_letters, repeat=3), 100_000)]
    body = b"".join(map(make_pax_record, keys))
    headers = [make_member("g", tarfile.XGLTYPE, body[start : start + 9000]) for start in range(0, 90_000, 9000)]
    members = [make_member(f"{number}") for number in range(2000)]
    output, grown_mb = unpack_in_child(write_tar_gz(tmp_path / "a.tar.gz", *headers, *members), tmp_path / "out")
    assert "global headers of more than 100 keys" in output and grown_mb < 100


def test_long_single_header_is_refused(tmp_path: Path) -> None:
    path = write_tar_gz(
        tmp_path / "a.tar.gz",
        make_member("p", tarfile.XHDTYPE, make_pax_record("comment", "x" * 20_000)),
        make_member("a"),
    )
    with pytest.raises(BadInput, match="headers of more than 16384 bytes"):
        fetch.unpack(path, tmp_path / "out", NoProgress())


def test_many_empty_members_do_not_allow_a_huge_header(tmp_path: Path) -> None:
    """The bytes allowed for headers grow with each member, up to a limit."""
    with write_tar_gz(tmp_path / "a.tar.gz", *(make_member(f"{number}") for number in range(2000))).open("rb") as file:
        tar = bounded_tar.BoundedTar(io.BytesIO(gzip.decompress(file.read())), tmp_path / "a.tar.gz")
        for _ in tar:
            assert tar.headers.budget <= bounded_tar.MAX_BUDGET


def test_headers_of_members_are_not_kept(tmp_path: Path) -> None:
    """All members are listed before the first is unpacked, so their headers would add up."""
    body = b"".join(make_pax_record(f"key{number}") for number in range(200))
    members = [
        entry for number in range(20) for entry in (make_member("p", tarfile.XHDTYPE, body), make_member(f"{number}"))
    ]
    with bounded_tar.open_tar(write_tar_gz(tmp_path / "a.tar.gz", *members)) as tar:
        assert [listed.pax_headers for listed in tar] == [{}] * 20


@pytest.mark.timeout(20)
def test_long_runs_of_digits_in_a_header_are_refused_at_once(tmp_path: Path) -> None:
    path = write_tar_gz(
        tmp_path / "a.tar.gz", *[make_member("p", tarfile.XHDTYPE, b"9" * 16_000), make_member("a")] * 20
    )
    started = time.process_time()
    with pytest.raises(BadInput, match="more than 64 digits in a row"):
        fetch.unpack(path, tmp_path / "out", NoProgress())
    assert time.process_time() - started < 1


def test_segments_of_sparse_files_are_limited(tmp_path: Path) -> None:
    segments = ",".join(["0"] * 8000)
    body = make_pax_record("GNU.sparse.map", segments) + make_pax_record("GNU.sparse.size", "0")
    members = [entry for _ in range(60) for entry in (make_member("p", tarfile.XHDTYPE, body), make_member("a"))]
    with pytest.raises(BadInput, match="more than 100000 blocks of sparse files"):
        fetch.unpack(write_tar_gz(tmp_path / "a.tar.gz", *members), tmp_path / "out", NoProgress())


def test_ordinary_headers_are_read(tmp_path: Path) -> None:
    """Fractional times, a global comment and a name of 200 letters, as `git archive` and GNU tar write them."""
    global_header = make_member("g", tarfile.XGLTYPE, make_pax_record("comment", "a" * 40))
    member_header = make_member(
        "p",
        tarfile.XHDTYPE,
        make_pax_record("path", "b" * 200 + ".png") + make_pax_record("mtime", "1700000000.123456789"),
    )
    fetch.unpack(
        write_tar_gz(tmp_path / "a.tar.gz", global_header, member_header, make_member("a", body=b"image")),
        tmp_path / "out",
        NoProgress(),
    )
    assert (tmp_path / "out" / ("b" * 200 + ".png")).read_bytes() == b"image"
