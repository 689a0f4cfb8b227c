"""The Zones tab: choose a finished run, draw zones on its median sound part, save them as a file, or make an artifact
with them.

Unusual here: the zones are kept by the page's script alone. It sends all of them with each event, and the server keeps none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr

from inspect_kd.apps.studio.handlers import PAGE_EVENT
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.apps.studio.zones import drawn_zones, endpoints, texts, view
from inspect_kd.apps.studio.zones.service import ZoneService
from inspect_kd.errors import BadInput, InspectKDError, UsageError

STUDIO_HTML: dict[str, Any] = {"apply_default_css": False, "elem_classes": "studio", "padding": False}
ON_LOAD_ANSWER = "watch('value', () => window.studioZones?.receive(element.querySelector('[data-answer]')));"
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "zones", "concurrency_limit": 1}
Answer = dict[str, Any]


class ZoneTab:
    """The components of the tab, and the service behind them."""

    def __init__(self, service: ZoneService) -> None:
        self.service = service
        self.serials = count(1)
        gr.HTML(f'<p class="soft">{texts.INTRO}</p>', js_on_load=None, **STUDIO_HTML)
        with gr.Row(elem_id="zones-bar"):
            self.run = gr.Dropdown(service.finished_runs(), value=None, label=texts.RUN, elem_id="zones-run")
            self.category = gr.Dropdown([], value=None, label=texts.CATEGORY, elem_id="zones-category")
        self.editor = gr.HTML(view.editor(), js_on_load=view.script(), elem_id="zones-editor", **STUDIO_HTML)
        self.answer = gr.HTML(js_on_load=ON_LOAD_ANSWER, elem_id="zones-answer", padding=False)
        self.made = gr.HTML(js_on_load=None, elem_id="zones-made", **STUDIO_HTML)
        self.stop = gr.Button(texts.STOP, size="sm", variant="stop", elem_id="zones-stop", visible=False)

    def reply(self, content: Answer) -> str:
        """An answer to the script."""
        return view.answer(content, next(self.serials))

    def reply_to(self, make_answer: Callable[[], Answer]) -> str:
        """An answer to the script, or the reason why there is none."""
        try:
            return self.reply(make_answer())
        except InspectKDError as error:
            return self.reply({"kind": "refused", "line": str(error)})


def build(settings: Settings, data_root: Path, tab: gr.Tab) -> None:
    """Lay the tab out in the open Blocks and connect its events. Browsers see no images but those below `data_root`."""
    service = ZoneService(data_root, settings.runs, settings.store)
    components = ZoneTab(service)
    tab.select(lambda: gr.update(choices=service.finished_runs()), None, components.run, **PAGE_EVENT)
    _connect_choice(components)
    _connect_drawing(components)
    _connect_export(components)
    endpoints.build(service)


def _connect_choice(components: ZoneTab) -> None:
    def open_run(run: str | None) -> Iterator[tuple[Any, str]]:
        yield from open_category(run, "")

    def open_category(run: str | None, category: str | None) -> Iterator[tuple[Any, str]]:
        yield (
            gr.skip(),
            components.reply({"kind": "opening", "run": run or "", "category": category or "", "line": texts.OPENING}),
        )
        try:
            description = components.service.describe(run or "", category or "")
        except InspectKDError as error:
            yield (
                _update_category_choices(components.service, run or ""),
                components.reply({"kind": "closed", "line": str(error)}),
            )
            return
        frame = description.frames[description.category]["frame"]
        content = {
            "kind": "opened",
            "run": description.run,
            "category": description.category,
            "categories": list(description.frames),
            "frame": frame,
            "picture": description.picture,
            "zones": description.zones,
            "about": description.about(),
            "labels": texts.HAS_LABELS if description.has_labels else "",
            "commands": "\n".join(components.service.commands(description)),
        }
        yield gr.update(choices=list(description.frames), value=description.category), components.reply(content)

    outputs = [components.category, components.answer]
    components.run.input(open_run, components.run, outputs, **ONE_AT_A_TIME, **PAGE_EVENT)
    components.category.input(
        open_category, [components.run, components.category], outputs, **ONE_AT_A_TIME, **PAGE_EVENT
    )


def _update_category_choices(service: ZoneService, run: str) -> Any:
    """Offer all categories of the run, so that another can be chosen when this one cannot be opened."""
    try:
        return gr.update(choices=list(service.frames(run)))
    except InspectKDError:
        return gr.skip()


def _connect_drawing(components: ZoneTab) -> None:
    service = components.service

    def check(event: gr.EventData) -> str:
        drawing = Drawing(event)

        def make_answer() -> Answer:
            lines = service.check(drawing.run, drawing.category, drawing.yaml()) if drawing.zones else []
            return {"kind": "checked", "revision": drawing.revision, "line": " · ".join(lines)}

        try:
            return components.reply(make_answer())
        except InspectKDError as error:
            return components.reply({"kind": "faulty", "revision": drawing.revision, "line": str(error)})

    def save(event: gr.EventData) -> str:
        def make_answer() -> Answer:
            drawing = Drawing(event)
            text = drawing.yaml()
            service.check(drawing.run, "", text, all_categories=True)
            return {"kind": "saved", "name": drawn_zones.FILE_NAME, "text": text}

        return components.reply_to(make_answer)

    def load(event: gr.EventData) -> str:
        def make_answer() -> Answer:
            frames = service.frames(text_of(event, "run"))
            zones = drawn_zones.read_yaml(text_of(event, "text"), frames)
            return {"kind": "loaded", "zones": zones, "name": text_of(event, "name")[:200]}

        return components.reply_to(make_answer)

    components.editor.check(check, None, components.answer, trigger_mode="always_last", **PAGE_EVENT)
    components.editor.save(save, None, components.answer, **PAGE_EVENT)
    components.editor.load(load, None, components.answer, **PAGE_EVENT)


def _connect_export(components: ZoneTab) -> None:
    service = components.service

    def make(event: gr.EventData) -> Iterator[tuple[str, str, Any]]:
        try:
            drawing = Drawing(event)
            for export in service.export(drawing.run, drawing.yaml()):
                is_over = export.artifact is not None or bool(export.error)
                page = view.export_progress(export, service.folder)
                yield components.reply({"kind": "making"}), page, gr.update(visible=not is_over)
        except InspectKDError as error:
            yield components.reply({"kind": "refused", "line": str(error)}), "", gr.update(visible=False)

    making = components.editor.make(
        make,
        None,
        [components.answer, components.made, components.stop],
        concurrency_id="zones-export",
        concurrency_limit=1,
        **PAGE_EVENT,
    )
    components.stop.click(
        lambda: (view.stopped(), gr.update(visible=False)),
        None,
        [components.made, components.stop],
        cancels=[making],
        **PAGE_EVENT,
    )


class Drawing:
    """The zones that an event brings, with the run and category that they were drawn for."""

    def __init__(self, event: gr.EventData) -> None:
        self.run, self.category = text_of(event, "run"), text_of(event, "category")
        self.zones = drawn_zones.parse_drawing(text_of(event, "zones"))
        self.revision = text_of(event, "revision")[:20]

    def yaml(self) -> str:
        """The zones as a file."""
        if not self.zones:
            raise BadInput(texts.NO_ZONES)
        return drawn_zones.write_yaml(self.zones)


def text_of(event: gr.EventData, key: str) -> str:
    """A text that the page's script sent with an event; a client may send anything."""
    data = event._data if isinstance(event._data, dict) else {}
    value = data.get(key, "")
    if not isinstance(value, str):
        raise UsageError(texts.NOT_DRAWN)
    return value
