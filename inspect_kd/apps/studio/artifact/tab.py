"""The Artifact tab: the card of the chosen artifact."""

from __future__ import annotations

import gradio as gr

from inspect_kd.apps.studio.artifact.view import card_page
from inspect_kd.apps.studio.bar import TopBar
from inspect_kd.apps.studio.handlers import PAGE_EVENT, errors_in_one_line
from inspect_kd.apps.studio.studio import Studio


def build(studio: Studio, tab: gr.Tab, top_bar: TopBar) -> None:
    """Lay the tab out in the open Blocks."""

    def render_card(name: str) -> str:
        with errors_in_one_line():
            return card_page(studio.library.open(name), studio.library.paths[name])

    page = gr.HTML(
        render_card(studio.library.names[0]),
        elem_id="card",
        js_on_load=None,
        apply_default_css=False,
        elem_classes="studio",
    )
    tab.select(render_card, top_bar.artifact, page, **PAGE_EVENT)
    top_bar.artifact.input(render_card, top_bar.artifact, page, **PAGE_EVENT)
