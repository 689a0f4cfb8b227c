"""What a request stands for: the desk of its session, and errors as one line that its sender reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from html import escape
from inspect import signature
from typing import Any, get_type_hints

import gradio as gr

from inspect_kd.apps.studio.desk import Desk
from inspect_kd.apps.studio.studio import Studio
from inspect_kd.errors import InspectKDError


def error_line(text: str) -> gr.Error:
    """An error that the page shows: Gradio reads it as HTML, and it quotes names from outside."""
    return gr.Error(escape(text, quote=False), duration=None, print_exception=False)


def typed(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint, refusing a value of another type than its parameter names: Gradio hands on whatever JSON holds."""
    kinds = {name: kind for name, kind in get_type_hints(endpoint).items() if kind in (str, int, float, bool)}
    names = list(signature(endpoint).parameters)

    @wraps(endpoint)
    def call(*values: Any) -> Any:
        for name, value in zip(names, values, strict=False):
            kind = kinds.get(name)
            if kind is not None and type(value) not in ((int, float) if kind is float else (kind,)):
                raise error_line(f"{name}: {value!r:.80} is not of type {kind.__name__}")
        return endpoint(*values)

    return call


@contextmanager
def in_one_line() -> Iterator[None]:
    """A person's error becomes one line on the page; anything else is a bug and keeps its traceback."""
    try:
        yield
    except InspectKDError as error:
        raise error_line(str(error)) from None


def page_desk(studio: Studio, request: gr.Request) -> Desk:
    """The desk of a browser tab; a notice of lost parts is shown until somebody closes it."""
    with in_one_line():
        desk = studio.desks.of(request.session_hash)
    notice, desk.notice = desk.notice, ""
    if notice:
        gr.Warning(escape(notice, quote=False), duration=None)
    return desk


def program_desk(studio: Studio, request: gr.Request) -> Desk:
    """The desk of a program's session; a notice of lost parts is an error, once: its part numbers are void."""
    with in_one_line():
        desk = studio.desks.of(request.session_hash)
    notice, desk.notice = desk.notice, ""
    if notice:
        raise error_line(notice)
    return desk
