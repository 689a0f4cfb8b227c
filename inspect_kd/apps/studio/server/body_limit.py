"""Limit the size of request bodies before anything else reads them; for uploads see `upload_gate`.

Without these limits, Gradio reads a whole body into memory, however long that takes, and parses it in the thread that answers all
requests.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.server.routes import LOGIN, find_route, is_form, route_of

MAX_HELD_BYTES = 2**26
"""Limit of all bodies together that are in memory."""
MAX_VALUES = 50_000
"""Limit of the brackets and commas in a body: parsing JSON with very many values takes seconds."""
READ_S = 30.0
"""Seconds within which a whole body must arrive."""
FORM = "application/x-www-form-urlencoded"


class BodyLimit:
    """Middleware that refuses a body that is too large, too slow or too complex, or for which there is no memory."""

    def __init__(self, app: ASGIApp, read_s: float = READ_S) -> None:
        self.app, self.read_s = app, read_s
        self.held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        max_bytes = find_route(route_of(scope)).max_bytes if scope["type"] == "http" else None
        if max_bytes is None or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        if (
            is_form(scope, LOGIN)
            and Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() != FORM
        ):
            await PlainTextResponse(texts.LOGIN_IS_FORM, 415)(scope, receive, send)
            return
        try:
            body = await self.read(max_bytes, scope, receive)
        except ClientDisconnect:
            return
        except HTTPException as refusal:
            await PlainTextResponse(refusal.detail, refusal.status_code)(scope, receive, send)
            return
        try:
            await self.app(scope, replay(body, receive), send)
        finally:
            self.held_bytes -= len(body)

    async def read(self, max_bytes: int, scope: Scope, receive: Receive) -> bytes:
        """Read the body, whatever its headers claim, and count it in `held_bytes`; HTTPException if it exceeds a limit."""
        too_large = HTTPException(413, texts.BODY_TOO_LARGE.format(maximum=max_bytes))
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > max_bytes:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.read_s):
                async for piece in Request(scope, receive).stream():
                    body += piece
                    self.held_bytes += len(piece)
                    if len(body) > max_bytes:
                        raise too_large
                    if self.held_bytes > MAX_HELD_BYTES:
                        raise HTTPException(503, texts.NO_MEMORY_FOR_BODY)
            if sum(map(body.count, (b"[", b"{", b","))) > MAX_VALUES:
                raise HTTPException(413, texts.BODY_TOO_COMPLEX.format(maximum=MAX_VALUES))
        except BaseException as error:
            self.held_bytes -= len(body)
            if isinstance(error, TimeoutError):
                raise HTTPException(408, texts.BODY_TOO_SLOW.format(seconds=round(self.read_s))) from None
            raise
        return bytes(body)


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that first returns the body as one message, then the messages of the connection."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again
