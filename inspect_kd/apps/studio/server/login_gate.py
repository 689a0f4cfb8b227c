"""Require a login on all routes but the public ones, before a request takes memory or disk space.

Gradio itself requires no login on some routes, and on the others it reads the request's body before it checks the login.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.server.routes import find_route, route_of


class LoginGate:
    """Middleware that answers 401 if the Studio has passwords and the request has no login."""

    def __init__(self, app: ASGIApp, gradio: Any) -> None:
        """`gradio`: Gradio's `App`, which keeps passwords and login tokens."""
        self.app, self.gradio = app, gradio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and find_route(route_of(scope)).needs_login and not self.is_logged_in(scope):
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
