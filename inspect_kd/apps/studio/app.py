"""The page: a bar with the artifact, a tab a task. Here Gradio begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import traverse

from inspect_kd.apps.studio import api, artifact_tab, compare_tab, inspect_tab, texts, train_tab
from inspect_kd.apps.studio.desks import Desks
from inspect_kd.apps.studio.marks import MarkBook
from inspect_kd.apps.studio.session_states import forget_values
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.apps.studio.shelf import Shelf
from inspect_kd.apps.studio.studio import Studio
from inspect_kd.apps.studio.uploads import Uploads

CLEAN_EVERY, CLEAN_AFTER = 600, 3600
"""Seconds: uploads that Gradio keeps are looked through this often and leave at this age."""


class Page(gr.Blocks):
    """Gradio's Blocks, which take uploads alone where an event names a file; Gradio itself would fetch web addresses."""

    def __init__(self, uploads: Uploads, **settings: Any) -> None:
        super().__init__(**settings)
        self.uploads = uploads

    async def process_api(self, *words: Any, **named: Any) -> dict[str, Any]:
        """Gradio names a call without a session after its event: each would open a desk, and nobody could close it."""
        session = named.get("session_hash")
        if session in (None, named.get("event_id")):
            raise gr.Error(texts.NO_SESSION, print_exception=False)
        try:
            return dict(await super().process_api(*words, **named))
        finally:
            forget_values(named.get("state"))

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *rest: Any, **named: Any) -> list[Any]:
        refuse_what_is_no_file(block_fn.inputs, inputs)
        named_files: set[str] = set()

        def check_file(file: dict[str, Any]) -> dict[str, Any]:
            checked_file = self.check_file(file)
            if checked_file["path"] in named_files:
                raise gr.Error(texts.NAMED_TWICE, print_exception=False)
            named_files.add(checked_file["path"])
            return checked_file

        checked = traverse(inputs, check_file, names_file)
        return list(await super().preprocess_data(block_fn, checked, *rest, **named))

    def check_file(self, file: dict[str, Any]) -> dict[str, Any]:
        path = file.get("path")
        if not isinstance(path, str) or not self.uploads.covers(Path(path)):
            raise gr.Error(texts.NOT_RECEIVED, print_exception=False)
        # Nothing else of it: Gradio would take the content out of a "data:" address, or open a file that is named within.
        return {"path": path, "meta": {"_type": "gradio.FileData"}}


def names_file(value: object) -> bool:
    """Whether a component could take this for a file, also without the mark that Gradio looks for."""
    return isinstance(value, dict) and ("path" in value or "url" in value)


def refuse_what_is_no_file(components: Sequence[Any], values: Sequence[Any]) -> None:
    """Raise where a component that takes files is sent anything else: Gradio would fail in its own code."""
    for component, value in zip(components, values, strict=False):
        files = value if isinstance(value, list) else [] if value is None else [value]
        if isinstance(component, gr.File | gr.Image) and not all(map(names_file, files)):
            raise gr.Error(texts.NOT_RECEIVED, print_exception=False)


def build(settings: Settings, received: Path) -> tuple[gr.Blocks, Studio]:
    """The whole page. `received` is Gradio's temporary folder ($GRADIO_TEMP_DIR), which the caller owns and removes."""
    shelf = Shelf(settings.artifacts, settings.threads, settings.trust)
    shelf.take(None)  # A broken artifact is said at the start, not at the first part.
    uploads = Uploads(received)
    desks = Desks(shelf, settings, received / "shown", uploads)
    studio = Studio(settings, shelf, desks, MarkBook(settings.store), uploads)
    with Page(
        uploads, title=texts.TITLE, analytics_enabled=False, fill_width=True, delete_cache=(CLEAN_EVERY, CLEAN_AFTER)
    ) as page:
        bar = inspect_tab.bar(studio)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab(texts.INSPECT, id="inspect"):
                inspect_tab.build(studio, bar, page)
            with gr.Tab(texts.COMPARE, id="compare") as tab:
                compare_tab.build(studio, tab)
            with gr.Tab(texts.ARTIFACT, id="artifact") as tab:
                artifact_tab.build(studio, tab, bar)
            if settings.train_on is not None:
                with gr.Tab(texts.TRAIN, id="train"):
                    train_tab.build(settings.train_on, settings.runs, settings.store)
        api.build(studio)
        page.unload(leave(studio))
    return page, studio


def leave(studio: Studio) -> Callable[[gr.Request], None]:
    """Whoever closes the tab takes the parts along."""

    def forget(request: gr.Request) -> None:
        studio.desks.leave(request.session_hash)

    return forget
