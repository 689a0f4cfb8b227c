"""The components of the Inspect tab that its events read or update."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

ON_LOAD_GALLERY = """
element.addEventListener('click', event => {
  const hit = event.target.closest('[data-part],[data-filter],[data-turn]');
  if (!hit) return;
  if (hit.dataset.part) trigger('pick', {part: Number(hit.dataset.part)});
  else if (hit.dataset.filter) trigger('filter', {name: hit.dataset.filter});
  else trigger('turn', {by: Number(hit.dataset.turn)});
});
element.addEventListener('change', event => {
  if (event.target.matches('[data-order]')) trigger('order', {name: event.target.value});
});
watch('value', () => window.studioKeepFocus(element));
"""
"""Script of a `gr.HTML` component: Gradio provides `element`, and `trigger` and `watch` for the component's events."""
ON_LOAD_VIEWER = "watch('value', () => window.studioKeepWipe());"


@dataclass(frozen=True, slots=True)
class Panels:
    """Components that are rendered again after a change."""

    progress: gr.HTML
    viewer: gr.HTML
    regions: gr.HTML
    gallery: gr.HTML
    scores: gr.HTML

    def all(self) -> list[gr.HTML]:
        return [self.progress, self.viewer, self.regions, self.gallery, self.scores]


@dataclass(frozen=True, slots=True)
class Controls:
    """Components of the left column, in which a person sends parts and sets thresholds."""

    files: gr.File
    camera: gr.Image
    examples: gr.Button
    clear: gr.Button
    stop: gr.Button
    reinspect: gr.Slider
    reject: gr.Slider
    reset: gr.Button
    signer_name: gr.Textbox
    sign_off_button: gr.Button
    sign_off_message: gr.HTML
