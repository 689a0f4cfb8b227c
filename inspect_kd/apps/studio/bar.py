"""The bar above the tabs: artifact, category, shortcuts, and the switch between light and dark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.session import Session
from inspect_kd.apps.studio.studio import Studio


@dataclass(frozen=True, slots=True)
class TopBar:
    """The dropdowns of the bar above the tabs."""

    artifact: gr.Dropdown
    category: gr.Dropdown


def build(studio: Studio) -> TopBar:
    """Lay the bar out in the open Blocks."""
    names = studio.library.names
    with gr.Row(elem_id="bar"):
        gr.HTML(f'<h1><i aria-hidden="true">◧</i> {texts.TITLE}</h1>', elem_id="brand", js_on_load=None)
        artifact = gr.Dropdown(names, value=names[0], label=texts.WHICH_ARTIFACT, elem_id="artifact-choice")
        choices, value = category_choices(studio, names[0])
        category = gr.Dropdown(choices, value=value, label=texts.WHICH_CATEGORY, elem_id="category-choice")
        keys = "".join(f"<span><kbd>{key}</kbd>{name}</span>" for key, name in texts.KEYS)
        gr.HTML(
            f'<div class="keys">{keys}</div><button type="button" data-theme-switch aria-label="{texts.THEME_SWITCH}" '
            f'title="{texts.THEME_SWITCH}">◐</button>',
            elem_id="keys",
            js_on_load=None,
        )
    return TopBar(artifact, category)


def category_choices(studio: Studio, artifact: str) -> tuple[list[tuple[str, str]], str]:
    """Choices of the category dropdown and its value; "" is the value for all categories together."""
    categories = studio.library.open(artifact).card.categories
    if len(categories) == 1:
        return [(categories[0], categories[0])], categories[0]
    return [(texts.ALL_CATEGORIES, ""), *((name, name) for name in categories)], ""


def choice_updates(studio: Studio, session: Session) -> tuple[Any, ...]:
    """Updates that show the session's artifact, category and thresholds, for example after a change of the artifact was stopped."""
    with session.lock:
        choices, _ = category_choices(studio, session.artifact)
        slider_max, thresholds = session.default_thresholds.highest_allowed, session.thresholds
        return (
            gr.update(value=session.artifact),
            gr.update(choices=choices, value=session.category or ""),
            gr.update(maximum=slider_max, value=round(thresholds.reinspect, 3)),
            gr.update(maximum=slider_max, value=round(thresholds.reject, 3)),
        )
