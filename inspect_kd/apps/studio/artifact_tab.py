"""The Artifact tab: the card of the artifact that looks."""

from __future__ import annotations

import gradio as gr

from inspect_kd.apps.studio.batches import PRIVATE
from inspect_kd.apps.studio.card_page import card_page
from inspect_kd.apps.studio.inspect_tab import Bar
from inspect_kd.apps.studio.studio import Studio


def build(studio: Studio, tab: gr.Tab, bar: Bar) -> None:
    def shown(name: str) -> str:
        return card_page(studio.shelf.take(name), studio.shelf.paths[name])

    card = gr.HTML(
        shown(studio.shelf.names[0]), elem_id="card", js_on_load=None, apply_default_css=False, elem_classes="studio"
    )
    tab.select(shown, bar.artifact, card, **PRIVATE)
    bar.artifact.input(shown, bar.artifact, card, **PRIVATE)
