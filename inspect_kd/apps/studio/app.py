"""The page: a bar with the artifact above the tabs. The only place that knows all tabs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ListFiles
from gradio_client.utils import traverse

import inspect_kd.apps.studio.artifact.endpoints as artifact_endpoints
import inspect_kd.apps.studio.artifact.tab as artifact_tab
import inspect_kd.apps.studio.compare.tab as compare_tab
import inspect_kd.apps.studio.inspect.endpoints as inspect_endpoints
import inspect_kd.apps.studio.inspect.tab as inspect_tab
import inspect_kd.apps.studio.train.tab as train_tab
import inspect_kd.apps.studio.zones.tab as zones_tab
from inspect_kd.apps.studio import bar, texts
from inspect_kd.apps.studio.artifact.library import ArtifactLibrary
from inspect_kd.apps.studio.handlers import error_line
from inspect_kd.apps.studio.inspect.marks import MarkStore
from inspect_kd.apps.studio.server.session_states import forget_values
from inspect_kd.apps.studio.server.uploads import Uploads
from inspect_kd.apps.studio.sessions import Sessions
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.apps.studio.studio import Studio

CLEAN_INTERVAL_S, MAX_FILE_AGE_S = 600, 3600
"""Gradio checks its uploaded files at this interval, and removes files older than this age."""


MAX_FILES = 4000
"""Limit of the files that one event may name."""
MAX_REASON_LENGTH = 200
"""Limit of the characters that are quoted of an error by Gradio."""


class AlwaysEmptySet(set[str]):
    """A set that keeps nothing: Gradio would keep the name of each upload, although `Uploads` moves and removes the file."""

    def update(self, *names: Iterable[str]) -> None:
        """Add nothing."""


class Page(gr.Blocks):
    """Gradio's Blocks, except that the files in an event must be uploads; Gradio itself would fetch web addresses."""

    def __init__(self, uploads: Uploads, **settings: Any) -> None:
        super().__init__(**settings)
        self.uploads = uploads
        self.upload_file_set = AlwaysEmptySet()

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Refuse calls without a session: Gradio would open a session for each of them and never close it."""
        session = kwargs.get("session_hash")
        # For a call without a session, Gradio takes the id of the event as the session.
        if session in (None, kwargs.get("event_id")):
            raise gr.Error(texts.NO_SESSION, print_exception=False)
        block_fn = args[0] if args else kwargs["block_fn"]
        if getattr(block_fn, "fn", block_fn) is None:  # an event that runs in the browser alone
            raise gr.Error(texts.NOT_SERVED, print_exception=False)
        try:
            return dict(await super().process_api(*args, **kwargs))
        except gr.Error as error:
            # Such as a value that a dropdown does not offer: the client gets one line, and no traceback is printed.
            error.print_exception = False
            raise
        finally:
            forget_values(kwargs.get("state"))

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Refuse files that were not uploaded, a file that an event names twice, and values that Gradio cannot interpret."""
        refuse_non_files(block_fn.inputs, inputs)
        paths: set[str] = set()

        def check_once(file: dict[str, Any]) -> dict[str, Any]:
            checked_file = self.check_file(file)
            if checked_file["path"] in paths:
                raise gr.Error(texts.NAMED_TWICE, print_exception=False)
            if len(paths) == MAX_FILES:
                raise gr.Error(texts.TOO_MANY_FILES.format(maximum=MAX_FILES), print_exception=False)
            paths.add(checked_file["path"])
            return checked_file

        checked_inputs = traverse(inputs, check_once, could_be_file)
        try:
            return list(await super().preprocess_data(block_fn, checked_inputs, *args, **kwargs))
        except gr.Error:
            raise
        except Exception as error:  # whatever Gradio raises here is about the client's values
            reason = str(error.__cause__ or error).partition("\n")[0][:MAX_REASON_LENGTH]
            raise error_line(texts.NOT_USABLE.format(reason=reason)) from None

    def check_file(self, file: dict[str, Any]) -> dict[str, Any]:
        """Refuse a file that was not uploaded; return what Gradio may read of it."""
        path = file.get("path")
        if not isinstance(path, str) or not self.uploads.is_upload_path(Path(path)):
            raise gr.Error(texts.NOT_RECEIVED, print_exception=False)
        # Keep only the path: in other keys, Gradio would decode a "data:" address or open another file.
        return {"path": path, "meta": {"_type": "gradio.FileData"}}


def could_be_file(value: object) -> bool:
    """Whether a component could interpret this as a file, even without the key that Gradio looks for."""
    return isinstance(value, dict) and ("path" in value or "url" in value)


def refuse_non_files(components: Sequence[Any], values: Sequence[Any]) -> None:
    """Refuse values other than files for components that take files; Gradio would fail with a traceback."""
    for component, value in zip(components, values, strict=False):
        files = value if isinstance(value, list) else [] if value is None else [value]
        if isinstance(component, gr.File | gr.Image) and not all(map(could_be_file, files)):
            raise gr.Error(texts.NOT_RECEIVED, print_exception=False)


def received_paths(files: ListFiles | FileData | None, *, is_single: bool) -> list[str] | str | None:
    """The paths that an event names; whether each is an upload is checked when it is read (`Uploads.take`)."""
    if files is None:
        return None
    paths = [file.path for file in (files.root if isinstance(files, ListFiles) else [files])]
    return paths[0] if is_single else paths


def build(settings: Settings, gradio_folder: Path) -> tuple[gr.Blocks, Studio]:
    """Build the whole page. `gradio_folder` is $GRADIO_TEMP_DIR, which the caller owns and removes."""
    library = ArtifactLibrary(settings.artifacts, settings.threads, settings.trust)
    library.open(None)  # A broken first artifact must be reported at the start, not at the first inspection.
    uploads = Uploads(gradio_folder)
    sessions = Sessions(library, settings, gradio_folder / "shown", uploads)
    studio = Studio(settings, library, sessions, MarkStore(settings.store), uploads)
    with Page(
        uploads,
        title=texts.TITLE,
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(CLEAN_INTERVAL_S, MAX_FILE_AGE_S),
    ) as page:
        top_bar = bar.build(studio)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab(texts.INSPECT, id="inspect"):
                inspect_tab.build(studio, top_bar, page)
            with gr.Tab(texts.COMPARE, id="compare") as tab:
                compare_tab.build(studio, tab)
            with gr.Tab(texts.ARTIFACT, id="artifact") as tab:
                artifact_tab.build(studio, tab, top_bar)
            if settings.train_on is not None:
                with gr.Tab(texts.TRAIN, id="train"):
                    train_tab.build(settings.train_on, settings.runs, settings.store)
                with gr.Tab(texts.ZONES, id="zones") as tab:
                    zones_tab.build(settings, settings.train_on, tab)
        inspect_endpoints.build(studio)
        artifact_endpoints.build(studio)
        page.unload(make_close_handler(studio))
    for block in page.blocks.values():
        if isinstance(block, gr.File):
            # Gradio itself makes one more file on disk for each path, even for a path that does not exist.
            is_single = block.file_count == "single"
            block.preprocess = partial(received_paths, is_single=is_single)  # type: ignore[method-assign]
    return page, studio


def make_close_handler(studio: Studio) -> Callable[[gr.Request], None]:
    """Return a handler that closes the session of a closed tab."""

    def close_session(request: gr.Request) -> None:
        studio.sessions.close_session(request.session_hash)

    return close_session
