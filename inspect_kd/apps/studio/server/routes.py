"""The routes that exist, each with its methods, its largest body and whether it needs a login; every rule about paths uses them.

Gradio has more routes than the Studio's page and programs use. A route that is not listed here is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette._utils import get_route_path
from starlette.types import Scope

API = "/gradio_api"
UPLOAD, UPLOAD_PROGRESS, HEARTBEAT = f"{API}/upload", f"{API}/upload_progress", f"{API}/heartbeat/"
LOGIN, LOGOUT = "/login", "/logout"


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """What the Studio accepts on a route."""

    methods: tuple[str, ...] = ("GET", "HEAD")
    max_bytes: int | None = 0
    """Largest body; None for uploads, which have limits of their own (`upload_gate`)."""
    needs_login: bool = True
    """Whether a login is needed if the Studio has passwords."""


REFUSED = Route(methods=())
READ, PUBLIC = Route(), Route(needs_login=False)
EVENT = Route(methods=("POST",), max_bytes=2**20)
"""Enough for an event that names some thousand files."""
ROUTES = {
    # The login page with its style, and what Gradio requests from itself at the start.
    **dict.fromkeys(("", LOGOUT, "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"), PUBLIC),
    **{f"{API}/{name}": PUBLIC for name in ("app_id", "login_check", "startup-events", "theme.css")},
    LOGIN: Route(methods=("POST",), max_bytes=2**14, needs_login=False),
    **dict.fromkeys(("/config", UPLOAD_PROGRESS), READ),
    **{f"{API}/{name}": READ for name in ("info", "openapi.json", "queue/data")},
    **{f"{API}/{name}": EVENT for name in ("cancel", "queue/join", "reset")},
    UPLOAD: Route(methods=("POST",), max_bytes=None),
}
FOLDERS = {
    # The page's own scripts and pictures.
    **dict.fromkeys(("/assets/", "/static/", "/svelte/"), PUBLIC),
    **dict.fromkeys((HEARTBEAT, f"{API}/file/", f"{API}/file="), READ),
    **dict.fromkeys((f"{API}/api/", f"{API}/run/"), EVENT),
    f"{API}/call/": Route(methods=("GET", "HEAD", "POST"), max_bytes=EVENT.max_bytes),
}
"""Routes by their beginnings."""


def route_of(scope: Scope) -> str:
    """The path below `--root-path`, whether or not the proxy has taken that prefix away.

    Starlette's own function, although it is private: rules that read paths differently from its router could be bypassed.
    """
    return get_route_path(scope)


def is_form(scope: Scope, route: str) -> bool:
    """Whether a request is for a form (login or logout). Gradio answers these routes with and without a slash at the end."""
    return route_of(scope).rstrip("/") == route


def find_route(path: str) -> Route:
    """What is accepted on a path below `--root-path`: `REFUSED`, which has no method, for a path that is not listed."""
    if path.rstrip("/") in ROUTES:
        return ROUTES[path.rstrip("/")]
    return next((route for start, route in FOLDERS.items() if path.startswith(start)), REFUSED)
