"""The route of a request, and the routes that exist; every rule about paths uses these functions.

Gradio has more routes than the Studio's page and programs use. A route that is not listed here is refused.
"""

from __future__ import annotations

from starlette._utils import get_route_path
from starlette.types import Scope

API = "/gradio_api"
UPLOAD, UPLOAD_PROGRESS, HEARTBEAT = f"{API}/upload", f"{API}/upload_progress", f"{API}/heartbeat/"
LOGIN, LOGOUT = "/login", "/logout"
PUBLIC_ROUTES = frozenset(
    [
        *("", LOGIN, LOGOUT, "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"),
        *(f"{API}/{name}" for name in ("app_id", "login_check", "startup-events", "theme.css")),
    ]
)
"""Routes without a login: the login page with its style, and what Gradio requests from itself at the start."""
PUBLIC_FOLDERS = ("/assets/", "/static/", "/svelte/")
"""Folders of the page's own scripts and pictures."""
PROTECTED_ROUTES = frozenset(
    [
        *("/config", UPLOAD, UPLOAD_PROGRESS),
        *(f"{API}/{name}" for name in ("cancel", "info", "openapi.json", "queue/data", "queue/join", "reset")),
    ]
)
PROTECTED_FOLDERS = (HEARTBEAT, *(f"{API}/{name}" for name in ("api/", "call/", "file/", "file=", "run/")))
"""Beginnings of routes; like `PROTECTED_ROUTES`, they need a login if the Studio has passwords."""


def route_of(scope: Scope) -> str:
    """The path below `--root-path`, whether or not the proxy has taken that prefix away.

    Starlette's own function, although it is private: rules that read paths differently from its router could be bypassed.
    """
    return get_route_path(scope)


def is_form(scope: Scope, route: str) -> bool:
    """Whether a request is for a form (login or logout). Gradio answers these routes with and without a slash at the end."""
    return route_of(scope).rstrip("/") == route


def is_public(route: str) -> bool:
    """Whether a route is answered without a login."""
    return route.rstrip("/") in PUBLIC_ROUTES or route.startswith(PUBLIC_FOLDERS)


def is_known(route: str) -> bool:
    """Whether a route is listed here; all others are refused."""
    return is_public(route) or route.rstrip("/") in PROTECTED_ROUTES or route.startswith(PROTECTED_FOLDERS)
