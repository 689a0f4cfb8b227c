"""The route of a request; every rule about paths uses these functions."""

from __future__ import annotations

from starlette._utils import get_route_path
from starlette.types import Scope

API = "/gradio_api"
UPLOAD = f"{API}/upload"
LOGIN, LOGOUT = "/login", "/logout"


def route_of(scope: Scope) -> str:
    """The path below `--root-path`, whether or not the proxy has taken that prefix away.

    Starlette's own function, although it is private: rules that read paths differently from its router could be bypassed.
    """
    return get_route_path(scope)


def is_form(scope: Scope, route: str) -> bool:
    """Whether a request is for a form (login or logout). Gradio answers these routes with and without a slash at the end."""
    return route_of(scope).rstrip("/") == route
