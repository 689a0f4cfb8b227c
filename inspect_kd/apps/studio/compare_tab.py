"""The Compare tab: a second artifact looks at the same parts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from inspect_kd.apps.studio import compare, gallery, texts
from inspect_kd.apps.studio.batches import DEVICE, EVERY, PRIVATE
from inspect_kd.apps.studio.inspect_tab import ON_LOAD_GALLERY
from inspect_kd.apps.studio.sessions import in_one_line, page_desk
from inspect_kd.apps.studio.studio import Studio, address


def build(studio: Studio, tab: gr.Tab) -> None:
    with gr.Column(elem_id="compare"):
        _build(studio, tab)


def _build(studio: Studio, tab: gr.Tab) -> None:
    with gr.Row(elem_id="compare-bar", elem_classes="tight"):
        second = gr.Dropdown(
            studio.shelf.names, value=studio.shelf.names[-1], label=texts.COMPARE_WITH, elem_id="second"
        )
        button = gr.Button(
            texts.COMPARE_BUTTON, variant="primary", elem_id="compare-now", interactive=len(studio.shelf.names) > 1
        )
        stop = gr.Button(texts.CANCEL, elem_id="compare-stop", variant="stop")
    progress = gr.HTML(elem_id="compare-progress", js_on_load=None, apply_default_css=False, elem_classes="studio")
    with gr.Row(elem_id="compare-bench", equal_height=False):
        with gr.Column(elem_id="compare-left", min_width=0):
            table = gr.HTML(
                elem_id="compare-table", js_on_load=ON_LOAD_GALLERY, apply_default_css=False, elem_classes="studio"
            )
        with gr.Column(elem_id="compare-right", min_width=0):
            pair = gr.HTML(elem_id="compare-pair", js_on_load=None, apply_default_css=False, elem_classes="studio")

    def shown(request: gr.Request) -> tuple[str, str]:
        desk = page_desk(studio, request)
        with desk.lock:
            return compare.comparison(desk, address), compare.side_by_side(desk, address)

    def run(artifact: str, request: gr.Request) -> Iterator[tuple[str, str, str]]:
        desk = page_desk(studio, request)
        began = told = time.monotonic()
        total = len(desk.parts)
        with in_one_line():
            for done in desk.compare(artifact):
                now = time.monotonic()
                if now - told > EVERY:
                    told = now
                    yield gallery.progress(done, total, now - began), *shown(request)
        yield "", *shown(request)

    def pick(event: gr.EventData, request: gr.Request) -> tuple[str, str]:
        page_desk(studio, request).select(int(event.part))
        return shown(request)

    def stopped(request: gr.Request) -> tuple[str, str, str]:
        return "", *shown(request)

    runs: dict[str, Any] = {"concurrency_id": DEVICE, "concurrency_limit": 1, **PRIVATE}
    started = button.click(run, second, [progress, table, pair], **runs)
    stop.click(stopped, None, [progress, table, pair], cancels=[started], **PRIVATE)
    table.pick(pick, None, [table, pair], **PRIVATE)
    tab.select(shown, None, [table, pair], **PRIVATE)
