"""The Train tab: choose a folder, check it, start, progress, stop and resume a training, open its report.

Unusual here: the page asks every two seconds and is sent only what has changed; whatever is redrawn would lose the place
to which somebody has scrolled. Everything that is known lies with the trainings, nothing in the page.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import Context
from gradio.events import api

from inspect_kd.apps.studio import train_view
from inspect_kd.apps.studio.sessions import error_line, in_one_line, typed
from inspect_kd.apps.studio.train_desk import Desk, Sight, digest
from inspect_kd.apps.studio.train_texts import Train
from inspect_kd.apps.studio.training_command import LARGEST_SEED, default_recipe, recipes
from inspect_kd.apps.studio.training_log import Figures
from inspect_kd.apps.studio.training_record import Order
from inspect_kd.errors import InspectKDError

LOOK_EVERY_S = 2.0
Seen = dict[str, str]
Updates = tuple[Any, ...]


def build(data_root: Path, runs: Path, store: Path, *, changes: Sequence[str] = ()) -> None:
    """Lay the tab out in the open Blocks. `changes` of the recipe (`section.key=value`) go with every training."""
    desk = Desk(data_root, runs, store, changes)
    desk.trainings.keep_tending(on_error=lambda error: logging.getLogger(__name__).error("trainings: %s", error))
    gr.HTML(f"<style>{css()}</style>", padding=False)
    gr.Markdown(Train.INTRO)
    if any(find_spec(name) is None for name in ("torch", "timm", "lightning")):
        gr.Markdown(f"**{Train.NO_TRAINING_PACKAGES}**")
    with gr.Row():
        with gr.Column(scale=4, min_width=360):
            form = OrderForm(desk)
        with gr.Column(scale=7, min_width=480):
            panel = ProgressPanel()
    shelf = ReportShelf()
    _wire_form(desk, form)
    _wire_panel(desk, form, panel, shelf)
    _endpoints(desk)


def css() -> str:
    return (files("inspect_kd.apps.studio") / "train.css").read_text(encoding="utf-8")


def _html(value: str, elem_id: str) -> gr.HTML:
    """Ours from top to bottom: Gradio's own rules for tables and lists are meant for prose."""
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False, padding=False)


class OrderForm:
    """The left half: what to train on, and how."""

    def __init__(self, desk: Desk) -> None:
        self.about = dict(recipes())
        gr.Markdown(f"### {Train.PARTS}")
        self.folder = gr.Dropdown(
            desk.folders(),
            value=None,
            label=Train.FOLDER,
            info=Train.FOLDER_INFO,
            allow_custom_value=True,
            elem_id="train-folder",
        )
        with gr.Row():
            self.check = gr.Button(Train.CHECK, interactive=False, size="md", elem_id="train-check")
            self.again = gr.Button(Train.AGAIN, size="md", elem_id="train-again")
        self.checked = _html(train_view.checked(None), "train-checked")
        self.recipe = gr.Dropdown(
            list(self.about),
            value=default_recipe(),
            label=Train.RECIPE,
            info=self.about[default_recipe()],
            elem_id="train-recipe",
        )
        self.length = gr.Radio(
            [Train.NORMAL, Train.QUICK],
            value=Train.NORMAL,
            label=Train.LENGTH,
            info=Train.LENGTH_INFO,
            elem_id="train-length",
        )
        with gr.Row():
            self.name = gr.Textbox(label=Train.NAME, info=Train.NAME_INFO, max_length=80, scale=3, elem_id="train-name")
            self.seed = gr.Number(
                value=0, precision=0, minimum=0, maximum=LARGEST_SEED, label=Train.SEED, scale=1, min_width=90
            )
        self.start = gr.Button(Train.START, variant="primary", interactive=False, elem_id="train-start")


def _wire_form(desk: Desk, form: OrderForm) -> None:
    def chosen(folder: str | None) -> Updates:
        ready = gr.update(interactive=bool(folder))
        return ready, ready, train_view.checked(None)

    def look(folder: str | None) -> Iterator[Updates]:
        with in_one_line():
            for told in desk.check(folder or ""):
                # Where not even a layout was recognised there is nothing to train on.
                yield train_view.checked(told), gr.update(interactive=bool(told.counts) or not told.over)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    form.folder.change(chosen, form.folder, [form.check, form.start, form.checked], queue=False, **quiet)
    form.again.click(lambda: gr.update(choices=desk.folders()), None, form.folder, **quiet)
    form.check.click(look, form.folder, [form.checked, form.start], concurrency_id="check", **quiet)
    form.recipe.change(lambda name: gr.update(info=form.about[name]), form.recipe, form.recipe, queue=False, **quiet)


class ProgressPanel:
    """The right half: one run, live, and below it all of them."""

    def __init__(self) -> None:
        gr.Markdown(f"### {Train.PROGRESS}")
        self.chosen = gr.Dropdown([], value=None, label=Train.CHOOSE, elem_id="train-run")
        with gr.Row():
            self.stop = gr.Button(Train.STOP, variant="stop", interactive=False, size="md", elem_id="train-stop")
            self.resume = gr.Button(Train.RESUME, interactive=False, size="md", elem_id="train-resume")
            self.open = gr.Button(Train.OPEN_REPORT, interactive=False, size="md", elem_id="train-open")
        self.status = _html(train_view.status(None, Figures(), ""), "train-status")
        self.curves = _html("", "train-curves")
        self.pictures = _html("", "train-pictures")
        with gr.Accordion(Train.LOG, open=False, elem_id="train-log"):
            self.log = gr.Textbox(show_label=False, label=Train.LOG, lines=12, max_lines=12, interactive=False)
        gr.Markdown(f"### {Train.RUNS}")
        self.runs = _html("", "train-runs")
        self.seen = gr.State({})

    @property
    def shown(self) -> list[Any]:
        """In the order of `news`."""
        parts = [self.chosen, self.status, self.curves, self.pictures, self.log, self.runs]
        return [*parts, self.stop, self.resume, self.open, self.seen]


class ReportShelf:
    """Over the whole width, and out of the way until somebody opens a report."""

    def __init__(self) -> None:
        with gr.Column(visible=False, elem_id="train-report") as self.shelf:
            self.close = gr.Button(Train.CLOSE_REPORT, size="md", elem_id="train-close")
            self.page = _html("", "train-page")


def news(sight: Sight, seen: Seen) -> Updates:
    """What has changed since the page was last told."""
    parts: dict[str, dict[str, Any]] = {
        "chosen": {"choices": sight.choices, "value": sight.chosen},
        "status": {"value": sight.status},
        "curves": {"value": sight.curves},
        "pictures": {"value": sight.pictures},
        "log": {"value": sight.log},
        "runs": {"value": sight.runs},
        "stop": {"interactive": sight.can_stop},
        "resume": {"interactive": sight.can_resume},
        "open": {"interactive": sight.can_open},
    }
    now = {name: digest(part) for name, part in parts.items()}
    updates = [gr.skip() if seen.get(name) == now[name] else gr.update(**part) for name, part in parts.items()]
    return *updates, now


def _wire_panel(desk: Desk, form: OrderForm, panel: ProgressPanel, shelf: ReportShelf) -> None:
    # Only what goes through the queue can tell a person what went wrong; the look every two seconds needs no place in it.
    asking: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

    def refresh(chosen: str | None, seen: Seen) -> Updates:
        return news(desk.sight(chosen), seen)

    def start(folder: str | None, recipe: str, length: str, name: str, seed: float | None, seen: Seen) -> Updates:
        quick = length == Train.QUICK
        order = Order(data=folder or "", recipe=recipe, name=name or "", quick=quick, seed=int(seed or 0))
        with in_one_line():
            return refresh(desk.trainings.start(order).name, seen)

    def stop(chosen: str, seen: Seen) -> Updates:
        with in_one_line():
            return refresh(desk.trainings.stop(chosen).name, seen)

    def resume(chosen: str, seen: Seen) -> Updates:
        with in_one_line():
            return refresh(desk.trainings.resume(chosen).name, seen)

    def open_report(chosen: str) -> Iterator[Updates]:
        yield from opened(desk, chosen)

    asked = [panel.chosen, panel.seen]
    wanted = [form.folder, form.recipe, form.length, form.name, form.seed, panel.seen]
    form.start.click(start, wanted, panel.shown, **asking)
    panel.stop.click(stop, asked, panel.shown, **asking)
    panel.resume.click(resume, asked, panel.shown, **asking)
    panel.chosen.input(refresh, asked, panel.shown, **quiet)
    gr.Timer(LOOK_EVERY_S).tick(refresh, asked, panel.shown, **quiet)
    if Context.root_block is not None:
        Context.root_block.load(refresh, asked, panel.shown, **quiet)
    few = asking | {"concurrency_id": "report", "concurrency_limit": 2}  # each holds several copies of a report
    panel.open.click(open_report, panel.chosen, [shelf.shelf, shelf.page], scroll_to_output=True, **few)
    shelf.close.click(lambda: (gr.update(visible=False), ""), None, [shelf.shelf, shelf.page], **quiet)


def opened(desk: Desk, chosen: str) -> Iterator[Updates]:
    """Shelf and page. A report is megabytes of pictures: whoever has pressed sees at once that it is on its way."""
    yield gr.update(visible=True), train_view.opening()
    try:
        page = desk.report(chosen)
    except InspectKDError as error:
        yield gr.update(visible=False), ""
        raise error_line(str(error)) from None
    yield gr.update(visible=True), train_view.report(chosen, page)


def _endpoints(desk: Desk) -> None:
    """What programs may call; folders are named below the Studio's data folder, runs by their names."""

    def train_folders() -> list[str]:
        return desk.folders()

    def train_check(folder: str) -> dict[str, Any]:
        with in_one_line():
            *_, last = desk.check(folder)
        return asdict(last) | {"sound": last.sound}

    def train_start(
        folder: str, recipe: str = "", name: str = "", quick: bool = False, seed: int = 0
    ) -> dict[str, Any]:
        order = Order(data=folder, recipe=recipe or default_recipe(), name=name, quick=quick, seed=seed)
        with in_one_line():
            return desk.told(desk.trainings.start(order))

    def train_state(name: str) -> dict[str, Any]:
        with in_one_line():
            return desk.told(desk.trainings.look(name))

    def train_stop(name: str) -> dict[str, Any]:
        with in_one_line():
            return desk.told(desk.trainings.stop(name))

    def train_resume(name: str) -> dict[str, Any]:
        with in_one_line():
            return desk.told(desk.trainings.resume(name))

    for call, about in (
        (train_folders, "Folders below the data folder that look like data sets."),
        (train_check, "What a folder holds and what is wrong with it, by category and split."),
        (
            train_start,
            "Start a training, or queue it; empty recipe: the default, empty name: made from folder and recipe.",
        ),
        (train_state, "State, phase, step, seconds left, loss, gap and error of a run."),
        (train_stop, "Stop a training; its checkpoint is kept."),
        (train_resume, "Go on with a stopped or failed training, to the same numbers."),
    ):
        api(typed(call), api_name=call.__name__, api_description=about)
