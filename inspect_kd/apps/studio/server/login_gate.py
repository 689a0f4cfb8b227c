"""Require a login on routes for which Gradio requires none, and before an upload reserves disk space."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.server.routes import API, UPLOAD, route_of

ROUTES = (UPLOAD, *(f"{API}/{name}" for name in ("heartbeat", "cancel", "stream", "reset")))
"""Requests to these routes take memory, read the disk or cancel the events of a session."""


class LoginGate:
    """Middleware that answers 401 if the Studio has passwords and the request has no login."""

    def __init__(self, app: ASGIApp, gradio: Any) -> None:
        """`gradio`: its `App`, which keeps passwords and login tokens."""
        self.app, self.gradio = app, gradio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and route_of(scope).startswith(ROUTES) and not self.is_logged_in(scope):
            await JSONResponse({"detail": texts.LOGIN_FIRST}, 401)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def is_logged_in(self, scope: Scope) -> bool:
        """Whether the request has a valid login cookie, or no login is needed."""
        if self.gradio.auth is None:
            return True
        cookies, name = Request(scope).cookies, self.gradio.cookie_id
        tokens = (cookies.get(f"access-token-{name}"), cookies.get(f"access-token-unsecure-{name}"))
        return any(token in self.gradio.tokens for token in tokens if token)
