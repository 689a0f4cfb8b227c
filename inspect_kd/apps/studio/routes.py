"""Which of Gradio's routes a request asks for; every rule about paths reads it here."""

from __future__ import annotations

from starlette._utils import get_route_path
from starlette.types import Scope

API = "/gradio_api"
UPLOAD = f"{API}/upload"
LOGIN, LOGOUT = "/login", "/logout"


def route_of(scope: Scope) -> str:
    """The path below `--root-path`, whether or not the proxy has taken that prefix away.

    Starlette's own function, for all that it is private: rules that read paths otherwise than its router could be passed by.
    """
    return get_route_path(scope)


def is_form(scope: Scope, route: str) -> bool:
    """Gradio answers its two forms with and without a slash at the end."""
    return route_of(scope).rstrip("/") == route
