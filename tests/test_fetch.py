"""Downloads from a real server that interrupts them, and hostile archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from inspect_kd.datasets import fetch
from inspect_kd.datasets.manifest import DownloadSource, Licence, Manifest, load_manifest
from inspect_kd.errors import BadInput, EnvironmentFault, UsageError
from inspect_kd.types import NoProgress
from tests.archive_server import Server, make_zip, serve_archive

pytestmark = pytest.mark.usefixtures("data_home")


def test_second_download_of_a_data_set_is_refused_with_the_holder(archive_server: Server, data_home: Path) -> None:
    manifest = serve_archive(archive_server, make_zip(**{"mine/good/1.png": b"1"}))
    archive_server.may_respond.clear()
    first_download = threading.Thread(target=fetch.get, args=(manifest, NoProgress()))
    first_download.start()
    try:
        while not archive_server.ranges:
            time.sleep(0.01)
        message = (
            rf"mine is in use by process {os.getpid()} on \S+ since \S+: wait until that process has downloaded it"
        )
        with pytest.raises(EnvironmentFault, match=message):
            fetch.get(manifest, NoProgress())
        # Another data set with the same archive is refused, too.
        with pytest.raises(EnvironmentFault, match=rf"a\.zip is in use by process {os.getpid()} "):
            fetch.get(manifest.model_copy(update={"name": "other"}), NoProgress())
    finally:
        archive_server.may_respond.set()
        first_download.join()
    assert fetch.get(manifest, NoProgress()) == data_home / "mine" and len(archive_server.ranges) == 1
    assert {path.name for path in data_home.iterdir()} == {"mine", "downloads"}
    assert [path.suffix for path in (data_home / "downloads").iterdir()] == [".zip"]


def test_interrupted_download_is_continued(archive_server: Server, data_home: Path) -> None:
    content = make_zip(**{"mine/good/1.png": bytes(range(256)) * 400})
    archive_server.max_response_bytes = len(content) // 3
    folder = fetch.get(serve_archive(archive_server, content), NoProgress())
    assert (folder / "mine" / "good" / "1.png").read_bytes() == bytes(range(256)) * 400
    assert archive_server.ranges[0] is None and all(archive_server.ranges[1:]) and len(archive_server.ranges) > 2
    request_count = len(archive_server.ranges)
    assert fetch.get(serve_archive(archive_server, content), NoProgress()) == folder
    assert len(archive_server.ranges) == request_count


def test_later_call_continues_a_failed_download(archive_server: Server, data_home: Path) -> None:
    content = make_zip(a=bytes(50_000))
    archive_server.max_response_bytes = 100
    with pytest.raises(EnvironmentFault, match="run the command again to continue"):
        fetch.get(serve_archive(archive_server, content), NoProgress())
    archive_server.max_response_bytes = 10**9
    fetch.get(serve_archive(archive_server, content), NoProgress())
    assert archive_server.ranges[-1] == "bytes=500-"


def test_wrong_digest_leaves_no_file(archive_server: Server, data_home: Path) -> None:
    with pytest.raises(BadInput, match="sha256 is"):
        fetch.get(serve_archive(archive_server, make_zip(a=b"x"), sha256="0" * 64), NoProgress())
    assert [path for path in data_home.rglob("*") if path.is_file()] == []


def test_changed_archive_is_downloaded_again(archive_server: Server, data_home: Path) -> None:
    content = make_zip(**{"mine/good/1.png": b"the right one"})
    manifest = serve_archive(archive_server, content)
    downloaded = data_home / "downloads" / f"{hashlib.sha256(content).hexdigest()[:16]}-a.zip"
    downloaded.parent.mkdir(parents=True)
    downloaded.write_bytes(make_zip(**{"mine/good/1.png": b"another"}))
    folder = fetch.get(manifest, NoProgress())
    assert (folder / "mine" / "good" / "1.png").read_bytes() == b"the right one"
    assert downloaded.read_bytes() == content


def test_download_larger_than_its_size_is_stopped(archive_server: Server, data_home: Path) -> None:
    with pytest.raises(BadInput, match="sends more than its size of 1000 bytes"):
        fetch.get(serve_archive(archive_server, make_zip(a=bytes(3 * 2**20)), size=1000), NoProgress())
    assert [path for path in data_home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_huge_tar_header_is_refused_unread(tmp_path: Path, kind: bytes) -> None:
    """The child may allocate 100 MB after its imports; the header has 400 MB."""
    header = tarfile.TarInfo("name")
    header.type, header.size = kind, 400 * 2**20
    with (tmp_path / "a.tar.gz").open("wb") as file:
        # Concatenated gzip files are one file, so a megabyte is compressed only once.
        file.write(gzip.compress(header.tobuf(tarfile.GNU_FORMAT)) + gzip.compress(b"a" * 2**20) * 400)
        file.write(gzip.compress(tarfile.TarInfo("name").tobuf() + bytes(1024)))
    program = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from inspect_kd.datasets import fetch\nfrom inspect_kd.types import NoProgress\n"
        "pages = int(Path('/proc/self/statm').read_text().split()[0])\n"
        "limit = pages * resource.getpagesize() + 100 * 2**20\nresource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "fetch.unpack(Path(sys.argv[1]), Path(sys.argv[2]), NoProgress())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.tar.gz"), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[-1].startswith("inspect_kd.errors.BadInput"), result.stderr
    assert "headers of more than" in result.stderr


def test_total_of_many_tar_headers_is_limited(tmp_path: Path) -> None:
    """Each header alone is short enough."""
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for number in range(4):
            member = tarfile.TarInfo(f"{number}.png")
            member.pax_headers = {"comment": "a" * 2**19}
            tar.addfile(member)
    with pytest.raises(BadInput, match="headers of more than"):
        fetch.unpack(tmp_path / "a.tar.gz", tmp_path / "out", NoProgress())


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_long_names_in_tars_of_any_compression_are_unpacked(tmp_path: Path, mode: str) -> None:
    name = "ä" * 60 + "/" + "b" * 200 + ".png"
    with tarfile.open(tmp_path / "a.tar", mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        member = tarfile.TarInfo(name)
        member.size = 5
        tar.addfile(member, io.BytesIO(b"image"))
    fetch.unpack(tmp_path / "a.tar", tmp_path / "out", NoProgress())
    assert (tmp_path / "out" / name).read_bytes() == b"image"


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil"])
def test_zip_members_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.zip").write_bytes(make_zip(**{name: b"x"}))
    with pytest.raises(BadInput, match="leads out"):
        fetch.unpack(tmp_path / "a.zip", tmp_path / "out", NoProgress())
    assert not (tmp_path / "evil").exists()


def test_zip_links_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BadInput, match="link or a device"):
        fetch.unpack(tmp_path / "a.zip", tmp_path / "out", NoProgress())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_tar_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("innocent")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(BadInput, match="link or a device"):
        fetch.unpack(tmp_path / "a.tar", tmp_path / "out", NoProgress())


def test_tar_members_outside_the_folder_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../evil"), io.BytesIO())
    with pytest.raises(BadInput, match="leads out"):
        fetch.unpack(tmp_path / "a.tar.gz", tmp_path / "out", NoProgress())


def test_archive_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(300 * 2**20))
    with pytest.raises(BadInput, match="archive bomb"):
        fetch.unpack(tmp_path / "a.zip", tmp_path / "out", NoProgress())


def test_manual_download_prints_instructions() -> None:
    with pytest.raises(UsageError, match="Download MPDD from its homepage"):
        fetch.get(load_manifest("mpdd"), NoProgress())


def test_manifests_name_existing_anomalib_classes() -> None:
    import anomalib.data

    for name in ("mvtec_ad2", "visa", "btad", "kolektor"):
        source = load_manifest(name).source.anomalib
        assert source and hasattr(getattr(anomalib.data, source), "prepare_data")


def test_failed_download_by_anomalib_leaves_no_folder(
    archive_server: Server, data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anomalib.data.datamodules.image import kolektor

    content = make_zip(**{"kos01/Part0.jpg": b"image"})
    serve_archive(archive_server, content)
    address = f"http://127.0.0.1:{archive_server.server_port}/KolektorSDD.zip"
    monkeypatch.setattr(kolektor.DOWNLOAD_INFO, "url", address)
    with pytest.raises(EnvironmentFault, match="anomalib could not download KolektorSDD"):  # the digest differs
        fetch.get(load_manifest("kolektor"), NoProgress())
    assert not data_home.exists()
    monkeypatch.setattr(kolektor.DOWNLOAD_INFO, "hashsum", hashlib.sha256(content).hexdigest())
    folder = fetch.get(load_manifest("kolektor"), NoProgress())
    assert folder == data_home / "kolektor" and (folder / "kos01" / "Part0.jpg").read_bytes() == b"image"
    assert list(data_home.iterdir()) == [folder]


@pytest.mark.network
def test_anomalib_downloads_kolektor(data_home: Path) -> None:
    assert any(fetch.get(load_manifest("kolektor"), NoProgress()).rglob("*.jpg"))


@pytest.mark.parametrize(
    ("response_head", "reason"),
    [
        ((200, "Content-Length", "abc"), "Content-Length 'abc'"),
        ((302, "Location", "http://[bad"), "cannot be downloaded"),
        ((302, "Location", "ftp://127.0.0.1/a.zip"), "unknown url type: ftp"),
    ],
)
def test_invalid_server_response_is_an_environment_fault(
    archive_server: Server, response_head: tuple[int, str, str], reason: str
) -> None:
    manifest = serve_archive(archive_server, b"")
    archive_server.response_head = response_head
    with pytest.raises(EnvironmentFault, match=reason):
        fetch.get(manifest, NoProgress())


def test_url_with_a_space_is_refused_without_a_second_try(
    archive_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, tries = serve_archive(archive_server, b""), []
    url = f"http://127.0.0.1:{archive_server.server_port}/a b.zip"
    archive = manifest.source.archives[0].model_copy(update={"url": url})
    append = fetch._append
    monkeypatch.setattr(fetch, "_append", lambda *arguments: (tries.append(1), append(*arguments)))
    with pytest.raises(EnvironmentFault, match=r"a b.zip: cannot be downloaded \(URL can't contain control characters"):
        fetch.get(manifest.model_copy(update={"source": DownloadSource(archives=(archive,))}), NoProgress())
    assert len(tries) == 1


def test_url_with_an_umlaut_is_an_environment_fault(archive_server: Server) -> None:
    manifest = serve_archive(archive_server, b"")
    archive = manifest.source.archives[0].model_copy(
        update={"url": f"http://127.0.0.1:{archive_server.server_port}/ü.zip"}
    )
    with pytest.raises(EnvironmentFault, match="cannot be downloaded"):
        fetch.get(manifest.model_copy(update={"source": DownloadSource(archives=(archive,))}), NoProgress())


def test_manifest_whose_root_is_the_whole_disk_is_refused() -> None:
    with pytest.raises(ValueError, match="a whole disk"):
        Manifest(
            name="m",
            title="m",
            root="/",
            licence=Licence(name="x", commercial=True),
            source=DownloadSource(by_hand="Ask."),
        )
