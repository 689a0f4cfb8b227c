"""What all event handlers share: the session of a request, errors as one line, settings of private events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from html import escape
from inspect import signature
from typing import Any, get_type_hints

import gradio as gr

from inspect_kd.apps.studio.session import Session
from inspect_kd.apps.studio.studio import Studio
from inspect_kd.errors import InspectKDError

PAGE_EVENT: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""For events of the page: programs use the named endpoints instead."""
MODEL_EVENT: dict[str, Any] = {"concurrency_id": "device", "concurrency_limit": 1}
"""For events that run a model: one at a time, over all sessions."""


def error_line(text: str) -> gr.Error:
    """An error for the page, escaped: Gradio shows it as HTML, and it quotes names from outside."""
    return gr.Error(escape(text, quote=False), duration=None, print_exception=False)


def typed(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Check the types of an endpoint's arguments: Gradio passes on whatever the JSON contains."""
    types = {name: hint for name, hint in get_type_hints(endpoint).items() if hint in (str, int, float, bool)}
    names = list(signature(endpoint).parameters)

    @wraps(endpoint)
    def call(*values: Any) -> Any:
        for name, value in zip(names, values, strict=False):
            expected = types.get(name)
            if expected is not None and type(value) not in ((int, float) if expected is float else (expected,)):
                raise error_line(f"{name}: {value!r:.80} is not of type {expected.__name__}")
        return endpoint(*values)

    return call


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn our own errors into one line on the page; anything else is a bug and keeps its traceback."""
    try:
        yield
    except InspectKDError as error:
        raise error_line(str(error)) from None


def page_session(studio: Studio, request: gr.Request) -> Session:
    """The session of a browser tab; a notice of lost parts is shown until it is closed."""
    session, notice = _session_and_notice(studio, request)
    if notice:
        gr.Warning(escape(notice, quote=False), duration=None)
    return session


def api_session(studio: Studio, request: gr.Request) -> Session:
    """The session of a program. If its parts were cleared, raise that once as an error: its part numbers are invalid."""
    session, notice = _session_and_notice(studio, request)
    if notice:
        raise error_line(notice)
    return session


def _session_and_notice(studio: Studio, request: gr.Request) -> tuple[Session, str]:
    with errors_in_one_line():
        session = studio.sessions.get(request.session_hash)
    notice, session.notice = session.notice, ""
    return session, notice
