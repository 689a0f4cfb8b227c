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
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.server.routes import UPLOAD, UPLOAD_PROGRESS, route_of
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
        if scope["type"] == "http" and route_of(scope) == UPLOAD_PROGRESS:
            # Gradio would remember every upload id whose progress is asked for. The page works without an answer.
            await Response(status_code=204)(scope, receive, send)
            return
        if scope["type"] != "http" or scope["method"] != "POST" or route_of(scope) != UPLOAD:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "")
        # If a request states its size twice, servers differ on which one they use.
        if not announced.isdecimal() or "transfer-encoding" in headers:
            await PlainTextResponse(texts.NO_LENGTH, 411)(scope, receive, send)
            return
        self.remove_unfinished()
        if not await run_in_threadpool(self.make_room, int(announced)):
            await PlainTextResponse(self.disk_full_message, 413)(scope, receive, send)
            return
        upload = IncomingUpload()
        self.uploads.incoming.add(upload)
        try:
            counted = self.receive_counted(receive, upload, int(announced))
            await self.app(plain_upload(scope), counted, self.send_new_paths(send))
        except ClientDisconnect:
            return
        finally:
            self.uploads.incoming.discard(upload)
            self.remove_unfinished()

    def remove_unfinished(self) -> None:
        """Remove what aborted uploads and Gradio have left; in the event loop, so that no upload starts meanwhile."""
        if not self.uploads.incoming:
            self.uploads.remove_unfinished()

    @property
    def disk_full_message(self) -> str:
        return texts.DISK_FULL.format(mb=self.limit_mb)

    def make_room(self, size: int = 0) -> bool:
        """Remove old uploads, then return whether the disk limit leaves this many bytes."""
        self.uploads.remove_old()
        return self.free_bytes() >= size

    def receive_counted(self, receive: Receive, upload: IncomingUpload, announced: int) -> Receive:
        """Return a `receive` that counts the upload's bytes, and raises if they stall or exceed the disk limit."""

        async def receive_next() -> Message:
            try:
                message = await asyncio.wait_for(receive(), self.idle_s)
            except TimeoutError:
                raise HTTPException(408, texts.UPLOAD_STALLED) from None
            upload.arrived_bytes += len(message.get("body", b""))
            if upload.arrived_bytes > upload.reserved_bytes:
                # Reserve before measuring the room, so that simultaneous uploads count each other.
                # Each reservation is as large as what has arrived, so that a sender of few bytes reserves little.
                next_bytes = min(MAX_RESERVED_BYTES, max(MIN_RESERVED_BYTES, upload.arrived_bytes))
                upload.reserved_bytes = upload.arrived_bytes + min(next_bytes, max(0, announced - upload.arrived_bytes))
                if not await run_in_threadpool(self.make_room):
                    raise HTTPException(413, self.disk_full_message)
            return message

        return receive_next

    def send_new_paths(self, send: Send) -> Send:
        """Return a `send` that moves the received files, and replaces their paths in Gradio's response."""
        response_start: Message = {}
        body = bytearray()

        async def send_response(message: Message) -> None:
            if message["type"] == "http.response.start":
                response_start.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            if response_start["status"] == 200:
                body[:] = json.dumps([str(path) for path in self.uploads.add(json.loads(body))]).encode()
                MutableHeaders(scope=response_start)["content-length"] = str(len(body))
            await send(response_start)
            await send({"type": "http.response.body", "body": bytes(body)})

        return send_response


def plain_upload(scope: Scope) -> Scope:
    """The request without `Accept-Encoding`, since the response is parsed here, and without `upload_id`, which Gradio would keep."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    return {**scope, "headers": headers, "query_string": b""}
