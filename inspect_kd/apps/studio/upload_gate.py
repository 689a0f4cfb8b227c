"""Let an upload in where the disk limit leaves room for it, and hand what Gradio has received of it to `Uploads`."""

from __future__ import annotations

import json
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.uploads import Uploads

ROUTE = "/gradio_api/upload"


class UploadGate:
    def __init__(self, app: ASGIApp, uploads: Uploads, free_bytes: Callable[[], int], limit_mb: int) -> None:
        self.app, self.uploads, self.free_bytes, self.limit_mb = app, uploads, free_bytes, limit_mb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != ROUTE:
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if not announced.isdecimal():
            await PlainTextResponse(texts.NO_LENGTH, 411)(scope, receive, send)
            return
        # Counted before the room is measured: of two uploads at once, each sees the other.
        self.uploads.bytes_arriving += int(announced)
        try:
            if await run_in_threadpool(self.has_room):
                await self.app(without_compression(scope), receive, self.send_new_paths(send))
            else:
                await PlainTextResponse(texts.DISK_FULL.format(mb=self.limit_mb), 413)(scope, receive, send)
        finally:
            self.uploads.bytes_arriving -= int(announced)
            if not self.uploads.bytes_arriving:
                self.uploads.remove_unfinished()

    def has_room(self) -> bool:
        self.uploads.remove_old()
        return self.free_bytes() >= 0

    def send_new_paths(self, send: Send) -> Send:
        """Gradio answers with the list of paths: move the files, and send where they are now instead."""
        start: Message = {}
        body = bytearray()

        async def send_answer(message: Message) -> None:
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

        return send_answer


def without_compression(scope: Scope) -> Scope:
    """The request as of a client that takes no compressed answer: the answer is read here."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    return {**scope, "headers": headers}
