"""What a request stands for: the desk of its session, and errors as one line that its sender reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr

from inspect_kd.apps.studio.desk import Desk
from inspect_kd.apps.studio.studio import Studio
from inspect_kd.errors import InspectKDError


def error_line(text: str) -> gr.Error:
    """An error that the page shows: Gradio reads it as HTML, and it quotes names from outside."""
    return gr.Error(escape(text, quote=False), duration=None, print_exception=False)


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
