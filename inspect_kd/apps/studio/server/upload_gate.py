"""Accept an upload if the disk limit leaves room for it, and pass what Gradio has received to `Uploads`.

Room is reserved piece by piece as the bytes arrive: neither a false size nor a slow sender takes it from others.
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
from inspect_kd.apps.studio.server.uploads import Arrival, Uploads

FIRST_PIECE, PIECE = 2**18, 2**23
"""Fewest and most bytes reserved at once."""
IDLE_S = 60.0
"""An upload of which nothing has arrived for so long is ended."""


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
        # Of a request that states its size twice, servers differ on which one they use.
        if not announced.isdecimal() or "transfer-encoding" in headers:
            await PlainTextResponse(texts.NO_LENGTH, 411)(scope, receive, send)
            return
        if not await run_in_threadpool(self.has_room, int(announced)):
            await PlainTextResponse(self.no_room, 413)(scope, receive, send)
            return
        arrival = Arrival()
        self.uploads.arrivals.add(arrival)
        try:
            counted = self.receive_counted(receive, arrival, int(announced))
            await self.app(without_compression(scope), counted, self.send_new_paths(send))
        except ClientDisconnect:
            return
        finally:
            self.uploads.arrivals.discard(arrival)
            if not self.uploads.arrivals:
                self.uploads.remove_unfinished()

    @property
    def no_room(self) -> str:
        return texts.DISK_FULL.format(mb=self.limit_mb)

    def has_room(self, size: int = 0) -> bool:
        """Whether the disk limit leaves this many bytes, after old uploads have been removed."""
        self.uploads.remove_old()
        return self.free_bytes() >= size

    def receive_counted(self, receive: Receive, arrival: Arrival, announced: int) -> Receive:
        """Receive the upload's body; raise where it stalls or exceeds the disk limit."""

        async def receive_next() -> Message:
            try:
                message = await asyncio.wait_for(receive(), self.idle_s)
            except TimeoutError:
                raise HTTPException(408, texts.UPLOAD_STALLED) from None
            arrival.arrived += len(message.get("body", b""))
            if arrival.arrived > arrival.reserved:
                # Reserve before measuring the room, so that two uploads at once count each other.
                # As much again as has arrived: a sender of a few bytes reserves little.
                more = min(PIECE, max(FIRST_PIECE, arrival.arrived))
                arrival.reserved = arrival.arrived + min(more, max(0, announced - arrival.arrived))
                if not await run_in_threadpool(self.has_room):
                    raise HTTPException(413, self.no_room)
            return message

        return receive_next

    def send_new_paths(self, send: Send) -> Send:
        """Replace the list of paths in Gradio's response by the paths to which the files are moved."""
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
