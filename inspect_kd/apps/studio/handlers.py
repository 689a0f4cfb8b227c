"""What all event handlers share: the session of a request, errors as one line, settings of private events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from html import escape
from inspect import signature
from typing import Any, TypeVar, get_type_hints

import gradio as gr

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.session import Session
from inspect_kd.apps.studio.studio import Studio
from inspect_kd.errors import BadInput, InspectKDError

Value = TypeVar("Value", int, str)
PAGE_EVENT: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
"""For events of the page: programs use the named endpoints instead."""
MODEL_EVENT: dict[str, Any] = {"concurrency_id": "device", "concurrency_limit": 1}
"""For events that run a model: one at a time, over all sessions."""


def error_line(text: str) -> gr.Error:
    """An error for the page; escaped, because Gradio shows it as HTML and the text may quote a client's file name."""
    return gr.Error(escape(text, quote=False), duration=None, print_exception=False)


def with_checked_types(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap an endpoint so that it checks the types of its arguments: Gradio passes on whatever the JSON contains."""
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


def event_value(event: gr.EventData, name: str, kind: type[Value]) -> Value:
    """A value that the page sent with an event."""
    try:
        return kind(getattr(event, name))
    except (AttributeError, OverflowError, TypeError, ValueError):
        raise BadInput(texts.BAD_EVENT.format(name=name)) from None


def page_session(studio: Studio, request: gr.Request) -> Session:
    """The session of a browser tab. If its parts were cleared, show a notice that stays until the person closes it."""
    session, notice = _take_notice(studio, request)
    if notice:
        gr.Warning(escape(notice, quote=False), duration=None)
    return session


def api_session(studio: Studio, request: gr.Request) -> Session:
    """The session of a program. If its parts were cleared, raise that once as an error: its part numbers are invalid."""
    session, notice = _take_notice(studio, request)
    if notice:
        raise error_line(notice)
    return session


def _take_notice(studio: Studio, request: gr.Request) -> tuple[Session, str]:
    """The session of a request, and its notice, which is then cleared."""
    with errors_in_one_line():
        session = studio.sessions.get(request.session_hash)
    notice, session.notice = session.notice, ""
    return session, notice
