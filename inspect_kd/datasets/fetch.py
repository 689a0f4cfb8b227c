"""Download a data set: resumable, checked by digest, unpacked without trusting the archive.

A manifest lists the archives, or names anomalib's data module, which then downloads the images without resuming.
"""

from __future__ import annotations

import contextlib
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
from inspect_kd.errors import DISK_FAULTS, BadInput, EnvironmentFault, InspectKDError, UsageError, name_file_in_errors
from inspect_kd.file_lock import hold_lock
from inspect_kd.types import Progress
from inspect_kd.weights import sha256

BLOCK = 1 << 20
MAX_MEMBERS = 500_000
MAX_BYTES = 200 * 2**30
MAX_RATIO = 200
"""Highest ratio of unpacked to packed size: images hardly shrink when packed, archive bombs do."""
MAX_LZMA_BYTES = 256 * 2**20
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Accepted compression methods. With bzip2, `zipfile` unpacks whole blocks into memory, without a limit on their size."""
TRIES = 5
WAIT_ADVICE = "wait until that process has downloaded it, then run the command again"


def get(manifest: Manifest, progress: Progress) -> Path:
    """Download a data set unless it is there; the caller must have shown its licence."""
    folder = manifest.folder()
    lock = folder.with_name(f".{folder.name}.lock")
    # With a lock file, another process may still be writing. Without one, do not create it: the disk may be read-only.
    if manifest.is_downloaded() and not lock.exists():
        progress.note(f"{manifest.name} is already at {folder}")
        return folder
    if manifest.source.by_hand is not None:
        raise UsageError(
            f"{manifest.title} must be downloaded by hand. {manifest.source.by_hand} Folder: {folder}. Homepage: {manifest.homepage}"
        )
    with hold_lock(lock, str(folder), WAIT_ADVICE):
        if not manifest.is_downloaded():  # another process may have just finished
            _fetch(manifest, folder, progress)
    return folder


def _fetch(manifest: Manifest, folder: Path, progress: Progress) -> None:
    source = manifest.source
    if source.drawn is not None:
        from inspect_kd.datasets.drawn import draw_sample

        draw_sample(folder, source.drawn, progress=progress)
    elif source.anomalib is not None:
        with _staged(folder) as staging:
            _fetch_with_anomalib(source.anomalib, staging, manifest)
    else:
        with _staged(folder) as staging:
            _fetch_archives(source.archives, staging, folder.parent / "downloads", progress)


@contextlib.contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Yield the path of a folder to create; it is renamed to `folder` at the end of the block, and deleted after an error."""
    parent = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield parent / folder.name
        (parent / folder.name).rename(folder)
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def _fetch_with_anomalib(name: str, folder: Path, manifest: Manifest) -> None:
    try:
        import anomalib.data
    except ImportError as error:
        raise EnvironmentFault(
            f"{manifest.title} is downloaded by anomalib, which is missing: pip install 'inspect-kd[train]'"
        ) from error
    try:
        getattr(anomalib.data, name)(root=folder).prepare_data()
    except Exception as error:
        # anomalib raises all kinds of errors for a failed network, a full disk or a changed address.
        raise EnvironmentFault(
            f"anomalib could not download {manifest.title} ({type(error).__name__}: {error}). Homepage: {manifest.homepage}"
        ) from error


def _fetch_archives(archives: tuple[Archive, ...], folder: Path, downloads: Path, progress: Progress) -> None:
    """Download all archives and unpack them into one folder."""
    folder.mkdir()
    for archive in archives:
        lock = downloads / f".{archive.sha256[:16]}.lock"  # two data sets may share an archive
        with hold_lock(lock, archive.url, WAIT_ADVICE):
            unpack(download(archive, downloads, progress), folder, progress)


def download(archive: Archive, to: Path, progress: Progress) -> Path:
    """Download an archive and check its digest; continue an interrupted download."""
    to.mkdir(parents=True, exist_ok=True)
    name = archive.sha256[:16] + "-" + PurePosixPath(archive.url.split("?")[0]).name
    complete, partial = to / name, to / f"{name}.part"
    if complete.is_file():
        if sha256(complete) == archive.sha256:
            return complete
        progress.note(f"{complete}: its sha256 differs from the manifest's; it is deleted and downloaded again")
        complete.unlink()
    failure: Exception | None = None
    for _ in range(TRIES):
        try:
            _append(archive, partial, progress)
            failure = None
            break
        except (ValueError, http.client.InvalidURL) as error:  # a bad address or response; trying again would not help
            raise EnvironmentFault(f"{archive.url}: cannot be downloaded ({error})") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, EOFError) as error:
            failure = error
    if failure is not None:
        raise EnvironmentFault(
            f"{archive.url}: the download failed {TRIES} times ({failure}); run the command again to continue it"
        ) from failure
    progress.note(f"checking the sha256 of {name}")
    digest = sha256(partial)
    if digest != archive.sha256:
        partial.unlink()
        raise BadInput(
            f"{archive.url}: sha256 is {digest}, the manifest has {archive.sha256}; the file was deleted. Try again, or check the manifest"
        )
    partial.rename(complete)
    return complete


def _http_opener() -> urllib.request.OpenerDirector:
    """Return an opener for http and https only, so that redirects cannot lead to local files."""
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


def _parse_length(header: str | None) -> int | None:
    """Parse a Content-Length header."""
    if header is not None and not header.strip().isdecimal():
        raise ValueError(f"the server sent the Content-Length '{header[:80]}'")
    return None if header is None else int(header)


def _append(archive: Archive, partial: Path, progress: Progress) -> None:
    """Download the missing bytes of an archive."""
    limit = archive.size or MAX_BYTES
    offset = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = _http_opener().open(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to download
            return
        raise
    with response:
        resumed = response.status == 206
        length = _parse_length(response.headers.get("Content-Length"))
        received, present = 0, offset if resumed else 0
        progress.phase("download", archive.size or (0 if length is None else present + length), present)
        with name_file_in_errors(partial), partial.open("ab" if resumed else "wb") as file:
            while block := response.read(BLOCK):
                received += len(block)
                if file.tell() + len(block) > limit:
                    partial.unlink()
                    raise BadInput(f"{archive.url}: sends more than its size of {limit} bytes; the file was deleted")
                file.write(block)
                progress.advance(len(block))
    if length is not None and received < length:
        raise EOFError(f"the connection ended after {received} of {length} bytes")


def unpack(packed: Path, to: Path, progress: Progress) -> None:
    """Unpack regular files below a folder, within limits; anything else in the archive raises BadInput."""
    try:
        _check_lzma_memory(packed)
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
        # Each format has its own errors, among them KeyError and RuntimeError (an encrypted archive).
        raise BadInput(f"{packed}: a damaged archive ({type(error).__name__}: {error})") from error


def _check_lzma_memory(packed: Path) -> None:
    """Refuse LZMA archives whose header requests much memory, up to 4 GB; common .tar.xz files need at most 65 MB."""
    with packed.open("rb") as file:
        head = file.read(2**16)
    if head.startswith(b"\xfd7zXZ"):
        lzma.LZMADecompressor(memlimit=MAX_LZMA_BYTES).decompress(head, max_length=1)


def _unpack_zip(archive: zipfile.ZipFile, packed: Path, to: Path, progress: Progress) -> None:
    members = archive.infolist()
    _check_limits(packed, len(members), sum(member.file_size for member in members))
    progress.phase("unpack", len(members))
    for member in members:
        if member.compress_type not in ZIP_METHODS:
            raise BadInput(f"{packed}: '{member.filename}' uses compression method {member.compress_type}; refused")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BadInput(f"{packed}: '{member.filename}' is a link or a device; refused")
        target = _safe_target(to, member.filename, packed)
        if not member.is_dir():
            with archive.open(member) as source:
                _write(source, target, member.file_size, packed)
        progress.advance()


def _unpack_tar(tar: tarfile.TarFile, packed: Path, to: Path, progress: Progress) -> None:
    progress.phase("list files", 0)  # reads the whole archive, which takes minutes for some gigabytes
    members = []
    for member in _bounded_members(tar, packed):
        members.append(member)
        progress.advance()
    progress.phase("unpack", len(members))
    for member in members:
        if not (member.isfile() or member.isdir()):
            raise BadInput(f"{packed}: '{member.name}' is a link or a device; refused")
        target = _safe_target(to, member.name, packed)
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
        # Headers count too: `offset_data` is the number of bytes before the member's content.
        _check_limits(packed, count, max(total, member.offset_data))
        yield member


def _check_limits(packed: Path, members: int, total: int) -> None:
    if members > MAX_MEMBERS or total > MAX_BYTES or total > MAX_RATIO * max(packed.stat().st_size, BLOCK):
        raise BadInput(
            f"{packed}: {members} members of {total} bytes from {packed.stat().st_size}: an archive bomb; refused"
        )


def _safe_target(to: Path, name: str, packed: Path) -> Path:
    target = (to / name.replace("\\", "/")).resolve()
    if name.startswith(("/", "\\")) or not target.is_relative_to(to.resolve()):
        raise BadInput(f"{packed}: '{name}' leads out of the folder; refused")
    return target


def _write(source: IO[bytes], target: Path, size: int, packed: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    remaining = size
    with name_file_in_errors(target), target.open("wb") as file:
        while block := source.read(BLOCK):
            remaining -= len(block)
            if remaining < 0:
                raise BadInput(f"{packed}: '{target.name}' is longer than the archive says; refused")
            file.write(block)
