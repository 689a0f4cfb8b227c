"""The right half of the Train tab: the progress of one run, all runs below it, and a run's report."""

from __future__ import annotations

from typing import Any

import gradio as gr

from inspect_kd.apps.studio.handlers import PAGE_EVENT
from inspect_kd.apps.studio.train import texts, view
from inspect_kd.apps.studio.train.log import CommandProgress
from inspect_kd.apps.studio.train.service import ProgressView, digest

UNQUEUED: dict[str, Any] = {"queue": False, **PAGE_EVENT}
Digests = dict[str, str]
"""Component -> digest of what it shows."""
Updates = tuple[Any, ...]


def unstyled_html(value: str, elem_id: str) -> gr.HTML:
    """An HTML component without Gradio's own style, which is meant for tables and lists in prose."""
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False, padding=False)


class ProgressPanel:
    """The progress of one run, and below it the list of all runs."""

    def __init__(self) -> None:
        gr.Markdown(f"### {texts.PROGRESS}")
        self.chosen = gr.Dropdown([], value=None, label=texts.CHOSEN_RUN, elem_id="train-run")
        with gr.Row():
            self.stop = gr.Button(texts.STOP, variant="stop", interactive=False, size="md", elem_id="train-stop")
            self.resume = gr.Button(texts.RESUME, interactive=False, size="md", elem_id="train-resume")
            self.open = gr.Button(texts.OPEN_REPORT, interactive=False, size="md", elem_id="train-open")
        self.status = unstyled_html(view.status(None, CommandProgress(), ""), "train-status")
        self.curves = unstyled_html("", "train-curves")
        self.pictures = unstyled_html("", "train-pictures")
        with gr.Accordion(texts.LOG, open=False, elem_id="train-log"):
            self.log = gr.Textbox(show_label=False, label=texts.LOG, lines=12, max_lines=12, interactive=False)
        gr.Markdown(f"### {texts.RUNS}")
        self.runs = unstyled_html("", "train-runs")
        self.digests = gr.State({})

    @property
    def outputs(self) -> list[Any]:
        """The components, in the order of `changed_components`."""
        components = [self.chosen, self.status, self.curves, self.pictures, self.log, self.runs]
        return [*components, self.stop, self.resume, self.open, self.digests]


class ReportPanel:
    """The report of a run, over the whole width; hidden until one is opened."""

    def __init__(self) -> None:
        with gr.Column(visible=False, elem_id="train-report") as self.column:
            self.close = gr.Button(texts.CLOSE_REPORT, size="md", elem_id="train-close")
            self.page = unstyled_html("", "train-page")


def changed_components(progress: ProgressView, digests: Digests) -> Updates:
    """Updates of the components that have changed; rendering the others again would reset their scroll position."""
    values: dict[str, dict[str, Any]] = {
        "chosen": {"choices": progress.choices, "value": progress.chosen},
        "status": {"value": progress.status},
        "curves": {"value": progress.curves},
        "pictures": {"value": progress.pictures},
        "log": {"value": progress.log},
        "runs": {"value": progress.runs},
        "stop": {"interactive": progress.can_stop},
        "resume": {"interactive": progress.can_resume},
        "open": {"interactive": progress.can_open},
    }
    new_digests = {name: digest(value) for name, value in values.items()}
    updates = [
        gr.skip() if digests.get(name) == new_digests[name] else gr.update(**value) for name, value in values.items()
    ]
    return *updates, new_digests
