"""Refuse requests that other sites make a browser send, and set the security headers of all responses.

It wraps Gradio's application, so that a foreign origin never gets Gradio's own CORS response. Programs send
neither `Origin` nor `Sec-Fetch-Site` and pass; a browser sends at least one of them wherever that matters.
"""

from __future__ import annotations

import json
import re
import string
from pathlib import Path, PurePath

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.server.allowed_hosts import AllowedHosts
from inspect_kd.apps.studio.server.routes import API, HEARTBEAT, LOGOUT, find_route, is_form, route_of

FILE_ROUTE = re.compile(rf"{API}/file[=/](.*)", re.DOTALL)
MAX_SESSION_NAME_LENGTH = 64
"""Limit of the characters in a session's name (`session_hash`); Gradio's clients use at most 36."""
SESSION_NAME_LETTERS = frozenset(string.ascii_letters + string.digits + "_-")
"""Gradio builds the names of its tasks from a session's name, and takes them apart again."""
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        # Gradio needs inline scripts and `eval`. Handlers in attributes are refused: if a file name was not escaped by
        # mistake, it could contain one.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "script-src-attr 'none'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class HttpGuard:
    """Check each request's host, origin, path and method; add the security headers to each response."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts, served: Path) -> None:
        """`served`: the only folder whose files Gradio's file route may send."""
        self.app, self.hosts, self.served = app, hosts, served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        app, reason = self.app, self.reason_to_refuse(scope)
        methods = find_route(route_of(scope)).methods
        if reason is not None:
            app = PlainTextResponse(f"{reason}\n", 403)
        elif scope["method"] not in methods:
            allowed = ", ".join(methods)
            app = PlainTextResponse(texts.METHOD_REFUSED.format(methods=allowed) + "\n", 405, {"Allow": allowed})
        await app(scope, receive, send_with_headers)

    def reason_to_refuse(self, scope: Scope) -> str | None:
        """The reason to answer 403; None for a request that is allowed."""
        headers, path = Headers(scope=scope), route_of(scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.hosts.accepts_host(host):
            return texts.FOREIGN_HOST.format(host=json.dumps(host[:80]))
        if origin is not None and not self.hosts.accepts_origin(origin, host):
            return texts.FOREIGN_ORIGIN.format(origin=json.dumps(origin[:80]))
        site = headers.get("sec-fetch-site", "none")
        # A link or a picture on a page of another site could log a person out.
        if is_form(scope, LOGOUT) and "sec-fetch-site" not in headers and not self.comes_from_own_page(headers):
            return texts.FOREIGN_SITE
        if site not in ("none", "same-origin") and not opens_page(scope["method"], path, headers):
            return texts.FOREIGN_SITE
        file = FILE_ROUTE.fullmatch(path)
        if path.startswith(HEARTBEAT) and not is_session_name(path.removeprefix(HEARTBEAT)):
            return texts.BAD_SESSION_NAME.format(maximum=MAX_SESSION_NAME_LENGTH)
        if not find_route(path).methods or (file and not self.is_served(file[1])):
            return texts.NOT_SERVED
        return None

    def comes_from_own_page(self, headers: Headers) -> bool:
        """Whether `Referer` is the Studio's page: over plain HTTP, no other header names the page that holds the link or picture."""
        page = "/".join(headers.get("referer", "").split("/")[:3])
        return self.hosts.accepts_origin(page, headers.get("host", ""))

    def is_served(self, file: str) -> bool:
        """Whether this is a path below the served folder, and neither an upload nor a web address."""
        path = PurePath(file)
        return path.is_relative_to(self.served) and ".." not in path.parts


def is_session_name(name: str) -> bool:
    """Whether a client may use this `session_hash`."""
    return len(name) <= MAX_SESSION_NAME_LENGTH and SESSION_NAME_LETTERS.issuperset(name)


def opens_page(method: str, path: str, headers: Headers) -> bool:
    """Whether this opens the Studio's page in a tab, for example from a link."""
    loads_document = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    return method in ("GET", "HEAD") and path in ("", "/") and loads_document
