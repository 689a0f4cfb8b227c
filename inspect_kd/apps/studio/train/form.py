"""The left half of the Train tab: the form for a new training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from inspect_kd.apps.studio.handlers import PAGE_EVENT, errors_in_one_line
from inspect_kd.apps.studio.train import texts, view
from inspect_kd.apps.studio.train.command import MAX_SEED, default_recipe, list_recipes
from inspect_kd.apps.studio.train.panel import UNQUEUED, Updates, own_html
from inspect_kd.apps.studio.train.service import TrainService


class TrainForm:
    """Folder, recipe, length, name and seed of a training."""

    def __init__(self, service: TrainService) -> None:
        self.descriptions = dict(list_recipes())
        gr.Markdown(f"### {texts.PARTS}")
        self.folder = gr.Dropdown(
            service.folders(),
            value=None,
            label=texts.FOLDER,
            info=texts.FOLDER_INFO,
            allow_custom_value=True,
            elem_id="train-folder",
        )
        with gr.Row():
            self.check = gr.Button(texts.CHECK, interactive=False, size="md", elem_id="train-check")
            self.refresh_list = gr.Button(texts.REFRESH_LIST, size="md", elem_id="train-again")
        self.check_result = own_html(view.check_result(None), "train-checked")
        recipe = default_recipe()
        self.recipe = gr.Dropdown(
            list(self.descriptions),
            value=recipe,
            label=texts.RECIPE,
            info=self.descriptions[recipe],
            elem_id="train-recipe",
        )
        self.length = gr.Radio(
            [texts.NORMAL, texts.QUICK],
            value=texts.NORMAL,
            label=texts.LENGTH,
            info=texts.LENGTH_INFO,
            elem_id="train-length",
        )
        with gr.Row():
            self.name = gr.Textbox(label=texts.NAME, info=texts.NAME_INFO, max_length=80, scale=3, elem_id="train-name")
            self.seed = gr.Number(
                value=0, precision=0, minimum=0, maximum=MAX_SEED, label=texts.SEED, scale=1, min_width=90
            )
        self.start = gr.Button(texts.START, variant="primary", interactive=False, elem_id="train-start")


def connect_form(service: TrainService, form: TrainForm) -> None:
    """Connect the form's own events; the panel connects the start button."""

    def choose_folder(folder: str | None) -> Updates:
        ready = gr.update(interactive=bool(folder))
        return ready, ready, view.check_result(None)

    def check_folder(folder: str | None) -> Iterator[Updates]:
        with errors_in_one_line():
            for check in service.check(folder or ""):
                # Without a recognised layout there is nothing to train on.
                yield view.check_result(check), gr.update(interactive=bool(check.counts) or not check.over)

    form.folder.change(choose_folder, form.folder, [form.check, form.start, form.check_result], **UNQUEUED)
    form.refresh_list.click(lambda: gr.update(choices=service.folders()), None, form.folder, **PAGE_EVENT)
    form.check.click(check_folder, form.folder, [form.check_result, form.start], concurrency_id="check", **PAGE_EVENT)
    form.recipe.change(lambda name: gr.update(info=form.descriptions[name]), form.recipe, form.recipe, **UNQUEUED)


def form_inputs(form: TrainForm) -> list[Any]:
    """The inputs of a training, in the order of `start_training`."""
    return [form.folder, form.recipe, form.length, form.name, form.seed]
