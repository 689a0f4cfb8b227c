"""The page: a bar with the artifact above the tabs. The only place that knows all tabs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import traverse

import inspect_kd.apps.studio.artifact.endpoints as artifact_endpoints
import inspect_kd.apps.studio.artifact.tab as artifact_tab
import inspect_kd.apps.studio.compare.tab as compare_tab
import inspect_kd.apps.studio.inspect.endpoints as inspect_endpoints
import inspect_kd.apps.studio.inspect.tab as inspect_tab
import inspect_kd.apps.studio.train.tab as train_tab
from inspect_kd.apps.studio import bar, texts
from inspect_kd.apps.studio.artifact.library import ArtifactLibrary
from inspect_kd.apps.studio.inspect.marks import MarkStore
from inspect_kd.apps.studio.server.session_states import forget_values
from inspect_kd.apps.studio.server.uploads import Uploads
from inspect_kd.apps.studio.sessions import Sessions
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.apps.studio.studio import Studio

CLEAN_EVERY_S, CLEAN_AFTER_S = 600, 3600
"""Gradio looks through the uploads that it keeps this often, and removes them at this age."""


class Page(gr.Blocks):
    """Gradio's Blocks, except that events may name uploaded files only; Gradio itself would fetch web addresses."""

    def __init__(self, uploads: Uploads, **settings: Any) -> None:
        super().__init__(**settings)
        self.uploads = uploads

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Refuse calls without a session: Gradio names each after its event, and would open a session that is never closed."""
        session = kwargs.get("session_hash")
        if session in (None, kwargs.get("event_id")):
            raise gr.Error(texts.NO_SESSION, print_exception=False)
        try:
            return dict(await super().process_api(*args, **kwargs))
        finally:
            forget_values(kwargs.get("state"))

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Check every file that the inputs of an event name; each file only once."""
        refuse_other_values(block_fn.inputs, inputs)
        paths: set[str] = set()

        def check_file(file: dict[str, Any]) -> dict[str, Any]:
            checked_file = self.check_file(file)
            if checked_file["path"] in paths:
                raise gr.Error(texts.NAMED_TWICE, print_exception=False)
            paths.add(checked_file["path"])
            return checked_file

        checked = traverse(inputs, check_file, names_file)
        return list(await super().preprocess_data(block_fn, checked, *args, **kwargs))

    def check_file(self, file: dict[str, Any]) -> dict[str, Any]:
        """Refuse a file that was not uploaded."""
        path = file.get("path")
        if not isinstance(path, str) or not self.uploads.covers(Path(path)):
            raise gr.Error(texts.NOT_RECEIVED, print_exception=False)
        # Only the path: Gradio would decode the content of a "data:" address, or open another file that is named within.
        return {"path": path, "meta": {"_type": "gradio.FileData"}}


def names_file(value: object) -> bool:
    """Whether a component could take this for a file, even without the key that Gradio looks for."""
    return isinstance(value, dict) and ("path" in value or "url" in value)


def refuse_other_values(components: Sequence[Any], values: Sequence[Any]) -> None:
    """Refuse values other than files for components that take files; Gradio would fail with a traceback."""
    for component, value in zip(components, values, strict=False):
        files = value if isinstance(value, list) else [] if value is None else [value]
        if isinstance(component, gr.File | gr.Image) and not all(map(names_file, files)):
            raise gr.Error(texts.NOT_RECEIVED, print_exception=False)


def build(settings: Settings, received: Path) -> tuple[gr.Blocks, Studio]:
    """Build the whole page. `received` is Gradio's temporary folder ($GRADIO_TEMP_DIR), which the caller owns and removes."""
    library = ArtifactLibrary(settings.artifacts, settings.threads, settings.trust)
    library.open(None)  # A broken artifact must stop the start, not the first inspection.
    uploads = Uploads(received)
    sessions = Sessions(library, settings, received / "shown", uploads)
    studio = Studio(settings, library, sessions, MarkStore(settings.store), uploads)
    with Page(
        uploads,
        title=texts.TITLE,
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(CLEAN_EVERY_S, CLEAN_AFTER_S),
    ) as page:
        top = bar.build(studio)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab(texts.INSPECT, id="inspect"):
                inspect_tab.build(studio, top, page)
            with gr.Tab(texts.COMPARE, id="compare") as tab:
                compare_tab.build(studio, tab)
            with gr.Tab(texts.ARTIFACT, id="artifact") as tab:
                artifact_tab.build(studio, tab, top)
            if settings.train_on is not None:
                with gr.Tab(texts.TRAIN, id="train"):
                    train_tab.build(settings.train_on, settings.runs, settings.store)
        inspect_endpoints.build(studio)
        artifact_endpoints.build(studio)
        page.unload(close_session(studio))
    return page, studio


def close_session(studio: Studio) -> Callable[[gr.Request], None]:
    """A handler that closes the session of a closed tab."""

    def close(request: gr.Request) -> None:
        studio.sessions.close_session(request.session_hash)

    return close
