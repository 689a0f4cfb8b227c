"""Limit the size of request bodies before anything else reads them; for uploads see `upload_gate`.

Without this limit, Gradio reads a whole body into memory, or into files, before it checks who sends it.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.server.routes import LOGIN, UPLOAD, is_form, route_of

MAX_BYTES = 2**20
"""Enough for an event that names some thousand files."""
MAX_LOGIN_BYTES = 2**14
FORM = "application/x-www-form-urlencoded"


class BodyLimit:
    """Middleware that answers 413 to a body that is too large."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or route_of(scope) == UPLOAD:
            await self.app(scope, receive, send)
            return
        is_login = is_form(scope, LOGIN)
        if is_login and Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() != FORM:
            await PlainTextResponse(texts.LOGIN_IS_FORM, 415)(scope, receive, send)
            return
        max_bytes = MAX_LOGIN_BYTES if is_login else MAX_BYTES
        try:
            body = await read_at_most(max_bytes, scope, receive)
        except ClientDisconnect:
            return
        if body is None:
            await PlainTextResponse(texts.BODY_TOO_LARGE.format(maximum=max_bytes), 413)(scope, receive, send)
            return
        await self.app(scope, replay(body, receive), send)


async def read_at_most(max_bytes: int, scope: Scope, receive: Receive) -> bytes | None:
    """Read the body, whatever its headers claim; None if it is longer than `max_bytes`."""
    announced = Headers(scope=scope).get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        return None
    body = bytearray()
    async for piece in Request(scope, receive).stream():
        body += piece
        if len(body) > max_bytes:
            return None
    return bytes(body)


def replay(body: bytes, receive: Receive) -> Receive:
    """Receive the body as one message, and then the messages of the connection."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again
