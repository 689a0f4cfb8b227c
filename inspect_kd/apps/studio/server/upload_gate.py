"""Accept an upload if the disk limit leaves room for it, and pass the files that Gradio has received to `Uploads`.

Room is reserved piece by piece as the bytes arrive: a client that announces too much, or sends slowly, takes no room from others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.server.routes import UPLOAD, route_of
from inspect_kd.apps.studio.server.uploads import IncomingUpload, Uploads

MIN_RESERVED_BYTES, MAX_RESERVED_BYTES = 2**18, 2**23
"""Size of one reservation."""
IDLE_S = 60.0
"""An upload is ended if nothing arrives for this time."""


class UploadGate:
    """Middleware around Gradio's upload route."""

    def __init__(
        self, app: ASGIApp, uploads: Uploads, free_bytes: Callable[[], int], limit_mb: int, idle_s: float = IDLE_S
    ) -> None:
        self.app, self.uploads, self.free_bytes, self.limit_mb = app, uploads, free_bytes, limit_mb
        self.idle_s = idle_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or route_of(scope) != UPLOAD:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "")
        # If a request states its size twice, servers differ on which one they use.
        if not announced.isdecimal() or "transfer-encoding" in headers:
            await PlainTextResponse(texts.NO_LENGTH, 411)(scope, receive, send)
            return
        if not await run_in_threadpool(self.has_room, int(announced)):
            await PlainTextResponse(self.disk_full, 413)(scope, receive, send)
            return
        upload = IncomingUpload()
        self.uploads.incoming.add(upload)
        try:
            counted = self.receive_counted(receive, upload, int(announced))
            await self.app(without_compression(scope), counted, self.send_new_paths(send))
        except ClientDisconnect:
            return
        finally:
            self.uploads.incoming.discard(upload)
            if not self.uploads.incoming:
                self.uploads.remove_unfinished()

    @property
    def disk_full(self) -> str:
        return texts.DISK_FULL.format(mb=self.limit_mb)

    def has_room(self, size: int = 0) -> bool:
        """Remove old uploads, then return whether the disk limit leaves this many bytes."""
        self.uploads.remove_old()
        return self.free_bytes() >= size

    def receive_counted(self, receive: Receive, upload: IncomingUpload, announced: int) -> Receive:
        """Receive the upload's body; raise if it stalls or exceeds the disk limit."""

        async def receive_next() -> Message:
            try:
                message = await asyncio.wait_for(receive(), self.idle_s)
            except TimeoutError:
                raise HTTPException(408, texts.UPLOAD_STALLED) from None
            upload.arrived_bytes += len(message.get("body", b""))
            if upload.arrived_bytes > upload.reserved_bytes:
                # Reserve before measuring the room, so that simultaneous uploads count each other.
                # The reservation equals what has arrived, so that a sender of few bytes reserves little.
                more = min(MAX_RESERVED_BYTES, max(MIN_RESERVED_BYTES, upload.arrived_bytes))
                upload.reserved_bytes = upload.arrived_bytes + min(more, max(0, announced - upload.arrived_bytes))
                if not await run_in_threadpool(self.has_room):
                    raise HTTPException(413, self.disk_full)
            return message

        return receive_next

    def send_new_paths(self, send: Send) -> Send:
        """Move the received files, and replace their paths in Gradio's response."""
        start: Message = {}
        body = bytearray()

        async def send_response(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            if start["status"] == 200:
                body[:] = json.dumps([str(path) for path in self.uploads.add(json.loads(body))]).encode()
                MutableHeaders(scope=start)["content-length"] = str(len(body))
            await send(start)
            await send({"type": "http.response.body", "body": bytes(body)})

        return send_response


def without_compression(scope: Scope) -> Scope:
    """The request without `Accept-Encoding`, since the response is parsed here."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    return {**scope, "headers": headers}
