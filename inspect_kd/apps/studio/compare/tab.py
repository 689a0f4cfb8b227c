"""The Compare tab: a second artifact inspects the same parts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.compare import view
from inspect_kd.apps.studio.handlers import MODEL_EVENT, PAGE_EVENT, errors_in_one_line, event_value, page_session
from inspect_kd.apps.studio.inspect import gallery
from inspect_kd.apps.studio.inspect.batches import UPDATE_INTERVAL_S
from inspect_kd.apps.studio.inspect.panels import ON_LOAD_GALLERY
from inspect_kd.apps.studio.studio import Studio, address


@dataclass(frozen=True, slots=True)
class ComparePanel:
    """The components of the tab."""

    second_artifact: gr.Dropdown
    compare_button: gr.Button
    stop_button: gr.Button
    progress: gr.HTML
    table: gr.HTML
    side_by_side: gr.HTML


def build(studio: Studio, tab: gr.Tab) -> None:
    """Lay the tab out in the open Blocks and connect its events."""
    with gr.Column(elem_id="compare"):
        panel = _lay_out(studio)
    _connect(studio, tab, panel)


def _lay_out(studio: Studio) -> ComparePanel:
    names = studio.library.names
    html_settings: dict[str, Any] = {"apply_default_css": False, "elem_classes": "studio"}
    with gr.Row(elem_id="compare-bar", elem_classes="tight"):
        second_artifact = gr.Dropdown(names, value=names[-1], label=texts.COMPARE_WITH, elem_id="second")
        compare_button = gr.Button(
            texts.COMPARE_BUTTON, variant="primary", elem_id="compare-now", interactive=len(names) > 1
        )
        stop_button = gr.Button(texts.CANCEL, elem_id="compare-stop", variant="stop")
    progress = gr.HTML(elem_id="compare-progress", js_on_load=None, **html_settings)
    with gr.Row(elem_id="compare-bench", equal_height=False):
        with gr.Column(elem_id="compare-left", min_width=0):
            table = gr.HTML(elem_id="compare-table", js_on_load=ON_LOAD_GALLERY, **html_settings)
        with gr.Column(elem_id="compare-right", min_width=0):
            side_by_side = gr.HTML(elem_id="compare-pair", js_on_load=None, **html_settings)
    return ComparePanel(second_artifact, compare_button, stop_button, progress, table, side_by_side)


def _connect(studio: Studio, tab: gr.Tab, panel: ComparePanel) -> None:
    def render_comparison(request: gr.Request) -> tuple[str, str]:
        session = page_session(studio, request)
        with session.lock:
            return view.decisions_of_both(session, address), view.side_by_side(session, address)

    def run_comparison(artifact: str, request: gr.Request) -> Iterator[tuple[str, str, str]]:
        session = page_session(studio, request)
        started_at = updated_at = time.monotonic()
        total = len(session.parts)
        with errors_in_one_line():
            for done in session.comparison.run(artifact):
                now = time.monotonic()
                if now - updated_at > UPDATE_INTERVAL_S:
                    updated_at = now
                    yield gallery.progress(done, total, now - started_at), *render_comparison(request)
        yield "", *render_comparison(request)

    def pick_part(event: gr.EventData, request: gr.Request) -> tuple[str, str]:
        with errors_in_one_line():
            page_session(studio, request).gallery.select(event_value(event, "part", int))
        return render_comparison(request)

    def clear_progress(request: gr.Request) -> tuple[str, str, str]:
        return "", *render_comparison(request)

    results, with_progress = [panel.table, panel.side_by_side], [panel.progress, panel.table, panel.side_by_side]
    run_event = panel.compare_button.click(
        run_comparison, panel.second_artifact, with_progress, **MODEL_EVENT, **PAGE_EVENT
    )
    panel.stop_button.click(clear_progress, None, with_progress, cancels=[run_event], **PAGE_EVENT)
    panel.table.pick(pick_part, None, results, **PAGE_EVENT)
    tab.select(render_comparison, None, results, **PAGE_EVENT)
