"""Bring a data set's images to this machine: resumable, checked by digest, unpacked without trusting the archive.

Where anomalib already downloads a set, anomalib does it.
"""

from __future__ import annotations

import http.client
import lzma
import shutil
import stat
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from inspect_kd.datasets.bounded_tar import open_tar
from inspect_kd.datasets.manifest import Archive, Manifest
from inspect_kd.errors import DISK_FAULTS, BadInput, EnvironmentFault, InspectKDError, UsageError, file_named
from inspect_kd.file_lock import hold_lock
from inspect_kd.types import Progress
from inspect_kd.weights import sha256

BLOCK = 1 << 20
MOST_MEMBERS = 500_000
MOST_BYTES = 200 * 2**30
LARGEST_RATIO = 200
"""Unpacked over packed, of a whole archive: images hardly shrink, bombs do."""
LZMA_MEMORY = 256 * 2**20
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Of a zip's members. `zipfile` unpacks a piece of bzip2 whole, however much it becomes."""
TRIES = 5
AFTER_ANOTHER = "wait until it has been fetched there, then run the command again"


def get(manifest: Manifest, progress: Progress) -> Path:
    """Fetch what is not there yet; the caller has shown the licence."""
    folder = manifest.folder()
    lock = folder.with_name(f".{folder.name}.lock")
    # With a lock beside it, it may still be growing; without one it may lie on a disk that takes no files.
    if _is_there(folder) and not lock.exists():
        progress.note(f"{manifest.name} is already at {folder}")
        return folder
    if manifest.source.by_hand is not None:
        raise UsageError(
            f"{manifest.title} cannot be fetched by a program. {manifest.source.by_hand} Folder: {folder}. Homepage: {manifest.homepage}"
        )
    with hold_lock(lock, str(folder), AFTER_ANOTHER):
        if not _is_there(folder):  # another process may have finished just now
            _fetch(manifest, folder, progress)
    return folder


def _is_there(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _fetch(manifest: Manifest, folder: Path, progress: Progress) -> None:
    source = manifest.source
    if source.drawn is not None:
        from inspect_kd.datasets.drawn import draw_sample

        draw_sample(folder, source.drawn, progress=progress)
    elif source.anomalib is not None:
        _by_anomalib(source.anomalib, folder, manifest)
    else:
        _by_archives(source.archives, folder, progress)


def _by_anomalib(name: str, folder: Path, manifest: Manifest) -> None:
    try:
        import anomalib.data
    except ImportError as error:
        raise EnvironmentFault(f"{manifest.title} is fetched by anomalib: pip install 'inspect-kd[train]'") from error
    try:
        getattr(anomalib.data, name)(root=folder).prepare_data()
    except Exception as error:
        # Whatever fails below anomalib (network, disk, a moved address) reads the same to a user.
        raise EnvironmentFault(
            f"anomalib could not fetch {manifest.title} ({type(error).__name__}: {error}). Homepage: {manifest.homepage}"
        ) from error


def _by_archives(archives: tuple[Archive, ...], folder: Path, progress: Progress) -> None:
    """All archives into one folder, which appears only when all of them are in it."""
    workshop = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for archive in archives:
            lock = folder.parent / "downloads" / f".{archive.sha256[:16]}.lock"  # two sets may share an archive
            with hold_lock(lock, archive.url, AFTER_ANOTHER):
                packed = download(archive, folder.parent / "downloads", progress)
                unpack(packed, workshop, progress)
        workshop.chmod(0o755)
        workshop.rename(folder)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def download(archive: Archive, to: Path, progress: Progress) -> Path:
    """The archive with the right digest; goes on where an earlier attempt stopped."""
    to.mkdir(parents=True, exist_ok=True)
    name = archive.sha256[:16] + "-" + PurePosixPath(archive.url.split("?")[0]).name
    done, part = to / name, to / f"{name}.part"
    if done.is_file():
        if sha256(done) == archive.sha256:
            return done
        progress.note(f"{done}: not what the manifest's sha256 says; it is thrown away and fetched again")
        done.unlink()
    progress.phase("download", archive.size or 0)
    last: Exception | None = None
    for _ in range(TRIES):
        try:
            _append(archive, part, progress)
            last = None
            break
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, EOFError) as error:
            last = error
        except ValueError as error:  # an address or an answer that no try will mend
            raise EnvironmentFault(f"{archive.url}: cannot be fetched ({error})") from error
    if last is not None:
        raise EnvironmentFault(
            f"{archive.url}: not fetched after {TRIES} tries ({last}); run the command again to go on"
        ) from last
    digest = sha256(part)
    if digest != archive.sha256:
        part.unlink()
        raise BadInput(
            f"{archive.url}: sha256 is {digest}, the manifest says {archive.sha256}; the file was thrown away"
        )
    part.rename(done)
    return done


def _web() -> urllib.request.OpenerDirector:
    """What opens http and https, and no other address that a server may send us on to."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _length_of(header: str | None) -> int | None:
    """The number that a Content-Length says."""
    if header is not None and not header.strip().isdecimal():
        raise ValueError(f"the server calls '{header[:80]}' its length")
    return None if header is None else int(header)


def _append(archive: Archive, part: Path, progress: Progress) -> None:
    most = archive.size or MOST_BYTES
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = _web().open(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to fetch
            return
        raise
    with answer:
        resumed = answer.status == 206
        length = _length_of(answer.headers.get("Content-Length"))
        got = 0
        with file_named(part), part.open("ab" if resumed else "wb") as file:
            while block := answer.read(BLOCK):
                got += len(block)
                if file.tell() + len(block) > most:
                    part.unlink()
                    raise BadInput(f"{archive.url}: sends more than {most} bytes, its size; the file was thrown away")
                file.write(block)
                progress.advance(len(block))
    if length is not None and got < length:
        raise EOFError(f"the connection ended after {got} of {length} bytes")


def unpack(packed: Path, to: Path, progress: Progress) -> None:
    """Regular files only, below the folder only, within bounds; anything else stops the unpacking."""
    try:
        _refuse_hungry(packed)
        if zipfile.is_zipfile(packed):
            with zipfile.ZipFile(packed) as archive:
                _unpack_zip(archive, packed, to, progress)
        else:
            with open_tar(packed) as tar:
                _unpack_tar(tar, packed, to, progress)
    except (InspectKDError, MemoryError):
        raise
    except tarfile.ReadError as error:
        raise BadInput(f"{packed}: neither a zip nor a tar archive that can be read ({error})") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FAULTS:
            raise
        # Each packing has errors of its own, some of them a KeyError or a RuntimeError (an archive that is locked).
        raise BadInput(f"{packed}: a damaged archive ({type(error).__name__}: {error})") from error


def _refuse_hungry(packed: Path) -> None:
    """LZMA reserves what a file's head asks for, up to 4 GB. Data sets come as .tar.xz (65 MB at most), never as LZMA in a zip."""
    with packed.open("rb") as file:
        head = file.read(2**16)
    if head.startswith(b"\xfd7zXZ"):
        lzma.LZMADecompressor(memlimit=LZMA_MEMORY).decompress(head, max_length=1)


def _unpack_zip(archive: zipfile.ZipFile, packed: Path, to: Path, progress: Progress) -> None:
    members = archive.infolist()
    _bounds(packed, len(members), sum(member.file_size for member in members))
    progress.phase("unpack", len(members))
    for member in members:
        if member.compress_type not in PACKINGS:
            raise BadInput(f"{packed}: '{member.filename}' is packed by method {member.compress_type}; refused")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BadInput(f"{packed}: '{member.filename}' is a link or a device; refused")
        target = _inside(to, member.filename, packed)
        if not member.is_dir():
            with archive.open(member) as source:
                _write(source, target, member.file_size, packed)
        progress.advance()


def _unpack_tar(tar: tarfile.TarFile, packed: Path, to: Path, progress: Progress) -> None:
    members = list(_bounded_members(tar, packed))
    progress.phase("unpack", len(members))
    for member in members:
        if not (member.isfile() or member.isdir()):
            raise BadInput(f"{packed}: '{member.name}' is a link or a device; refused")
        target = _inside(to, member.name, packed)
        source = tar.extractfile(member) if member.isfile() else None
        if source is not None:
            with source:
                _write(source, target, member.size, packed)
        progress.advance()


def _bounded_members(tar: tarfile.TarFile, packed: Path) -> Iterator[tarfile.TarInfo]:
    total = 0
    for count, member in enumerate(tar, start=1):
        if member.size < 0:
            raise BadInput(f"{packed}: '{member.name}' has a size below 0; refused")
        total += member.size
        # Headers count, too: `offset_data` is how much lies before the member's content.
        _bounds(packed, count, max(total, member.offset_data))
        yield member


def _bounds(packed: Path, members: int, total: int) -> None:
    if members > MOST_MEMBERS or total > MOST_BYTES or total > LARGEST_RATIO * max(packed.stat().st_size, BLOCK):
        raise BadInput(
            f"{packed}: {members} members of {total} bytes from {packed.stat().st_size}: an archive bomb; refused"
        )


def _inside(to: Path, name: str, packed: Path) -> Path:
    target = (to / name.replace("\\", "/")).resolve()
    if name.startswith(("/", "\\")) or not target.is_relative_to(to.resolve()):
        raise BadInput(f"{packed}: '{name}' leads out of the folder; refused")
    return target


def _write(source: IO[bytes], target: Path, size: int, packed: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = size
    with file_named(target), target.open("wb") as file:
        while block := source.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise BadInput(f"{packed}: '{target.name}' is longer than the archive says; refused")
            file.write(block)
