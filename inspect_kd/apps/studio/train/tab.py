"""The Train tab: choose a folder, check it, start, monitor, stop and resume a training, open its report.

Unusual here: the page sends a request every two seconds, and only changed components are sent back. The page holds no state.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context

from inspect_kd.apps.studio.handlers import PAGE_EVENT, error_line, errors_in_one_line
from inspect_kd.apps.studio.train import endpoints, texts, view
from inspect_kd.apps.studio.train.form import TrainForm, connect_form, form_inputs
from inspect_kd.apps.studio.train.panel import (
    UNQUEUED,
    Digests,
    ProgressPanel,
    ReportPanel,
    Updates,
    changed_components,
)
from inspect_kd.apps.studio.train.record import TrainRequest
from inspect_kd.apps.studio.train.service import TrainService
from inspect_kd.errors import InspectKDError

REFRESH_INTERVAL_S = 2.0


def build(data_root: Path, runs: Path, store: Path, *, changes: Sequence[str] = ()) -> None:
    """Lay the tab out in the open Blocks. `changes` to the recipe (`section.key=value`) apply to every training."""
    service = TrainService(data_root, runs, store, changes)
    logger = logging.getLogger(__name__)
    service.trainings.update_in_background(on_error=lambda error: logger.error("trainings: %s", error))
    style = (files("inspect_kd.apps.studio.train") / "train.css").read_text(encoding="utf-8")
    gr.HTML(f"<style>{style}</style>", padding=False)
    gr.Markdown(texts.INTRO)
    if any(find_spec(name) is None for name in ("torch", "timm", "lightning")):
        gr.Markdown(f"**{texts.NO_TRAINING_PACKAGES}**")
    with gr.Row():
        with gr.Column(scale=4, min_width=360):
            form = TrainForm(service)
        with gr.Column(scale=7, min_width=480):
            panel = ProgressPanel()
    report = ReportPanel()
    connect_form(service, form)
    _connect_panel(service, form, panel)
    _connect_report(service, panel, report)
    endpoints.build(service)


def _connect_panel(service: TrainService, form: TrainForm, panel: ProgressPanel) -> None:
    # Only queued events can show an error on the page; the refresh every two seconds shows none.
    queued: dict[str, Any] = {"concurrency_limit": None, **PAGE_EVENT}

    def refresh(chosen: str | None, digests: Digests) -> Updates:
        return changed_components(service.progress_view(chosen), digests)

    def start_training(
        folder: str | None, recipe: str, length: str, name: str, seed: float | None, digests: Digests
    ) -> Updates:
        quick = length == texts.QUICK
        request = TrainRequest(data=folder or "", recipe=recipe, name=name or "", quick=quick, seed=int(seed or 0))
        with errors_in_one_line():
            return refresh(service.trainings.start(request).name, digests)

    def stop_training(chosen: str, digests: Digests) -> Updates:
        with errors_in_one_line():
            return refresh(service.trainings.stop(chosen).name, digests)

    def resume_training(chosen: str, digests: Digests) -> Updates:
        with errors_in_one_line():
            return refresh(service.trainings.resume(chosen).name, digests)

    inputs = [panel.chosen, panel.digests]
    form.start.click(start_training, [*form_inputs(form), panel.digests], panel.outputs, **queued)
    panel.stop.click(stop_training, inputs, panel.outputs, **queued)
    panel.resume.click(resume_training, inputs, panel.outputs, **queued)
    panel.chosen.input(refresh, inputs, panel.outputs, **UNQUEUED)
    gr.Timer(REFRESH_INTERVAL_S).tick(refresh, inputs, panel.outputs, **UNQUEUED)
    if Context.root_block is not None:
        Context.root_block.load(refresh, inputs, panel.outputs, **UNQUEUED)


def _connect_report(service: TrainService, panel: ProgressPanel, report: ReportPanel) -> None:
    def open_chosen(chosen: str) -> Iterator[Updates]:
        yield from open_report(service, chosen)

    outputs = [report.column, report.page]
    # Each event holds several copies of a report in memory.
    limit: dict[str, Any] = {"concurrency_id": "report", "concurrency_limit": 2}
    panel.open.click(open_chosen, panel.chosen, outputs, scroll_to_output=True, **limit, **PAGE_EVENT)
    report.close.click(lambda: (gr.update(visible=False), ""), None, outputs, **UNQUEUED)


def open_report(service: TrainService, chosen: str) -> Iterator[Updates]:
    """Updates of column and page: a message at once, then the report, which has megabytes of pictures."""
    yield gr.update(visible=True), view.opening()
    try:
        page = service.report(chosen)
    except InspectKDError as error:
        yield gr.update(visible=False), ""
        raise error_line(str(error)) from None
    yield gr.update(visible=True), view.report(chosen, page)
