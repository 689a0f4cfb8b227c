"""A local HTTP server of one archive, and manifests of data sets that download it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from inspect_kd.datasets.manifest import Archive, DownloadSource, Licence, Manifest


class Server(ThreadingHTTPServer):
    """Serves one file; interrupts each response after `max_response_bytes` bytes; records the requested ranges."""

    content = b""
    response_head: tuple[int, str, str] | None = None
    """Status and one header, sent instead of the file."""
    max_response_bytes = 10**9
    ranges: list[str | None]
    may_respond: threading.Event
    """The first request is answered only when this is set."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        requested = self.headers.get("Range")
        self.server.ranges.append(requested)
        if len(self.server.ranges) == 1:
            self.server.may_respond.wait(60)
        if self.server.response_head is not None:
            status, name, value = self.server.response_head
            self.send_response(status)
            self.send_header(name, value)
            self.end_headers()
            return
        start = int(re.findall(r"\d+", requested)[0]) if requested else 0
        if start >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if requested else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the test interrupted the client
            self.wfile.write(body[: self.server.max_response_bytes])

    def log_message(self, format: str, *arguments: object) -> None: ...


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    """Run a server until the block ends."""
    with Server(("127.0.0.1", 0), Handler) as server:
        server.ranges, server.may_respond = [], threading.Event()
        server.may_respond.set()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def make_zip(**members: bytes) -> bytes:
    """Pack files, by their names, into a zip archive."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def serve_archive(server: Server, content: bytes, sha256: str | None = None, size: int | None = None) -> Manifest:
    """Serve an archive, and return the manifest of a data set that downloads it."""
    server.content = content
    digest = sha256 or hashlib.sha256(content).hexdigest()
    archive = Archive(url=f"http://127.0.0.1:{server.server_port}/a.zip", sha256=digest, size=size)
    return Manifest(
        name="mine",
        title="Mine",
        licence=Licence(name="x", commercial=True),
        source=DownloadSource(archives=(archive,)),
    )
