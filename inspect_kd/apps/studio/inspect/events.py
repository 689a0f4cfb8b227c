"""The events of the Inspect tab. Each handler does one thing to the session and returns the panels that may have changed.

Sliders use "always_last", so that the last event of a drag has the final thresholds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import gradio as gr

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.artifact.library import example_images
from inspect_kd.apps.studio.bar import TopBar, category_choices, choice_updates
from inspect_kd.apps.studio.handlers import MODEL_EVENT, PAGE_EVENT, errors_in_one_line, event_value, page_session
from inspect_kd.apps.studio.inspect.batches import (
    inspect_examples,
    inspect_files,
    render_panels,
    run_batch,
    select_inspected,
)
from inspect_kd.apps.studio.inspect.panels import Controls, Panels
from inspect_kd.apps.studio.session import Session
from inspect_kd.apps.studio.studio import Studio
from inspect_kd.errors import InspectKDError, UsageError
from inspect_kd.types import Decision

RenderedPanels = tuple[str, ...]
# By default Gradio's page drops an event while an earlier one is pending, and a stopped batch stays pending for some time.
NEVER_DROPPED: dict[str, Any] = {"trigger_mode": "multiple"}
PARALLEL_EVENTS = 8
"""Number of events of one kind that are handled simultaneously."""


def connect_batches(studio: Studio, top_bar: TopBar, controls: Controls, panels: Panels) -> None:
    """Connect the events that run the model, one at a time, and those that stop them."""

    def inspect_uploads(files: list[str] | None, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        session, files = page_session(studio, request), files or []
        for rendered in run_batch(session, inspect_files(studio, session, files), len(files)):
            yield None, *rendered

    def inspect_camera(file: str | None, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        session, files = page_session(studio, request), [file] if file else []
        name = time.strftime(texts.CAMERA_NAME)
        steps = (session.add(content, name) for _, content in studio.uploads.read(files) if content is not None)
        for rendered in run_batch(session, select_inspected(session, steps), len(files)):
            yield None, *rendered  # None empties the camera component, which then shows the live picture again

    def inspect_example_parts(request: gr.Request) -> Iterator[RenderedPanels]:
        session = page_session(studio, request)
        images = example_images(studio.settings.examples) if studio.settings.examples else []
        steps = inspect_examples(session, images, studio.settings.max_upload_mb * 2**20)
        yield from run_batch(session, steps, len(images))

    def change_artifact(artifact: str, category: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        session = page_session(studio, request)
        is_new_artifact = artifact != session.artifact
        with errors_in_one_line():
            new_category = category_choices(studio, artifact)[1] if is_new_artifact or not category else category
            steps = session.change_artifact(artifact, new_category or None)
            must_inspect = session.must_inspect_again(artifact, new_category or None)
            for rendered in run_batch(session, steps, len(session.parts) if must_inspect else 0):
                yield *[gr.skip()] * len(choices), *rendered
        yield *choice_updates(studio, session), *render_panels(session)

    outputs = panels.all()
    choices = [top_bar.artifact, top_bar.category, controls.reinspect, controls.reject]
    change_events = [
        dropdown.input(
            change_artifact, [top_bar.artifact, top_bar.category], [*choices, *outputs], **MODEL_EVENT, **PAGE_EVENT
        )
        for dropdown in (top_bar.artifact, top_bar.category)
    ]
    camera_event = controls.camera.input(
        inspect_camera, controls.camera, [controls.camera, *outputs], **NEVER_DROPPED, **MODEL_EVENT, **PAGE_EVENT
    )
    batch_events: list[dict[str, Any]] = [
        controls.files.upload(
            inspect_uploads, controls.files, [controls.files, *outputs], **NEVER_DROPPED, **MODEL_EVENT, **PAGE_EVENT
        ),
        camera_event,
        controls.examples.click(inspect_example_parts, None, outputs, **MODEL_EVENT, **PAGE_EVENT),
        *change_events,
    ]

    def show_choices(request: gr.Request) -> tuple[Any, ...]:
        return choice_updates(studio, page_session(studio, request))

    for event in change_events:
        event.failure(show_choices, None, choices, **PAGE_EVENT)

    camera_event.then(None, None, None, js="() => window.studioLiveAgain()", **PAGE_EVENT)

    def stop_batch(request: gr.Request) -> tuple[Any, ...]:
        session = page_session(studio, request)
        session.cancel()
        message = f'<p class="soft">{texts.STOPPED.format(done=len(session.parts))}</p>'
        return *choice_updates(studio, session), *render_panels(session, message)

    def clear_parts(request: gr.Request) -> tuple[Any, ...]:
        session = page_session(studio, request)
        session.clear()
        return None, *choice_updates(studio, session), *render_panels(session)

    controls.stop.click(stop_batch, None, [*choices, *outputs], cancels=batch_events, **PAGE_EVENT)
    controls.clear.click(clear_parts, None, [controls.camera, *choices, *outputs], cancels=batch_events, **PAGE_EVENT)


def connect_thresholds(studio: Studio, top_bar: TopBar, controls: Controls, panels: Panels) -> None:
    """Connect sliders, reset and sign-off."""
    outputs = [panels.viewer, panels.regions, panels.gallery, panels.scores]

    def move_sliders(reinspect: float | None, reject: float | None, request: gr.Request) -> tuple[Any, ...]:
        session = page_session(studio, request)
        if reinspect is None or reject is None:  # a number field is empty while a person edits it
            return (gr.skip(),) * len(outputs)
        with errors_in_one_line():
            session.set_thresholds(reinspect, reject)
        return render_panels(session)[1:]  # without the progress

    # One event for both sliders: with two, a late response to the first could undo the change of the second.
    gr.on(
        [controls.reinspect.change, controls.reject.change],
        move_sliders,
        [controls.reinspect, controls.reject],
        outputs,
        trigger_mode="always_last",
        concurrency_limit=PARALLEL_EVENTS,
        preprocess=False,  # Gradio's fails for an empty number field
        **PAGE_EVENT,
    )

    def reset_sliders(request: gr.Request) -> tuple[float, float]:
        thresholds = page_session(studio, request).default_thresholds
        return round(thresholds.reinspect, 3), round(thresholds.reject, 3)

    controls.reset.click(reset_sliders, None, [controls.reinspect, controls.reject], **PAGE_EVENT)

    def sign_off(by: str, artifact: str, category: str, reinspect: float, reject: float, request: gr.Request) -> str:
        session = page_session(studio, request)
        by = request.username or by
        try:
            with session.lock:
                # Sign only what the page shows; another event may have changed the session since.
                shown_on_page = (artifact, category or None, session.thresholds_at(reinspect, reject))
                if shown_on_page != (session.artifact, session.category, session.thresholds):
                    raise UsageError(texts.NOT_AS_SHOWN)
                path = studio.sign_off(session, by)
        except InspectKDError as error:
            return f'<p class="bad" role="alert">{texts.NOT_SIGNED_OFF.format(reason=escape(str(error)))}</p>'
        message = texts.SIGNED_OFF.format(
            file=escape(path.name),
            by=escape(by),
            artifact=escape(studio.library.paths[artifact].name),
            path=escape(str(path)),
        )
        return f'<p class="good" role="status">{message}</p>'

    inputs = [controls.signer_name, top_bar.artifact, top_bar.category, controls.reinspect, controls.reject]
    controls.sign_off_button.click(sign_off, inputs, controls.sign_off_message, **PAGE_EVENT)


def connect_gallery(studio: Studio, panels: Panels, buttons: dict[str, gr.Button]) -> None:
    """Connect selecting, filtering, sorting and marking."""
    outputs = [panels.viewer, panels.regions, panels.gallery]  # elements 1 to 3 of `render_panels`
    event_settings: dict[str, Any] = {"trigger_mode": "multiple", "concurrency_limit": PARALLEL_EVENTS, **PAGE_EVENT}

    def make_handler(change: Callable[[Session, gr.EventData], None]) -> Callable[..., RenderedPanels]:
        def change_gallery(event: gr.EventData, request: gr.Request) -> RenderedPanels:
            session = page_session(studio, request)
            with errors_in_one_line():
                change(session, event)
            return render_panels(session)[1:4]

        return change_gallery

    def make_mark_handler(mark: Decision) -> Callable[[str, gr.Request], RenderedPanels]:
        def mark_part(shown_part: str, request: gr.Request) -> RenderedPanels:
            session = page_session(studio, request)
            if shown_part:
                with errors_in_one_line():
                    _mark(studio, session, shown_part, mark, request.username or "")
            return render_panels(session)[1:4]

        return mark_part

    cards = panels.gallery
    for event, change in (
        (cards.filter, lambda session, event: session.gallery.set_filter(event_value(event, "name", str))),
        (cards.order, lambda session, event: session.gallery.set_order(event_value(event, "name", str))),
        (cards.turn, lambda session, event: session.gallery.turn_page(event_value(event, "by", int))),
    ):
        event(make_handler(change), None, outputs, **event_settings)

    def call_page_after(event: gr.events.Dependency) -> None:
        for answer in (event.success, event.failure):  # `then` is not called after a failure
            answer(None, None, None, js="() => window.studioAnswered()", **PAGE_EVENT)

    for event, change in (
        (cards.pick, lambda session, event: session.gallery.select(event_value(event, "part", int))),
        (buttons["next"].click, lambda session, _: session.gallery.step(1)),
        (buttons["previous"].click, lambda session, _: session.gallery.step(-1)),
    ):
        call_page_after(event(make_handler(change), None, outputs, **event_settings))
    # One queue for both, in the order of the clicks: Gradio runs events of different queues in any order.
    mark_settings: dict[str, Any] = event_settings | {"concurrency_id": "mark", "concurrency_limit": 1}
    shown_part = gr.Textbox(visible="hidden", elem_id="shown-part")
    for name, mark in (("ok", Decision.OK), ("ng", Decision.NG)):
        marked = buttons[name].click(
            make_mark_handler(mark), shown_part, outputs, js="() => window.studioShownPart()", **mark_settings
        )
        call_page_after(marked)


def _mark(studio: Studio, session: Session, shown_part: str, mark: Decision, by: str) -> None:
    """Mark the part that the page showed. `shown_part` is the part's key, a space, and its mark on the page (or nothing)."""
    key, _, former_mark = shown_part.partition(" ")
    with session.lock:  # no other event may change part, artifact or thresholds meanwhile
        part = next((part for part in session.all_parts() if part.key == key), None)
        if part is None:
            raise UsageError(texts.MARK_TOO_LATE)
        context = studio.mark_context(session, by)
        # Giving the same mark again removes it, so that a mistake is not trained on.
        if former_mark == mark:
            if not studio.marks.take_back(part, context):
                gr.Info(texts.MARK_OF_OTHERS, duration=None)
        else:
            studio.marks.put(part, mark, context)


def connect_load(studio: Studio, page: gr.Blocks, panels: Panels) -> None:
    """Render the session when the page is loaded."""

    def render_session(request: gr.Request) -> RenderedPanels:
        return render_panels(page_session(studio, request))

    page.load(render_session, None, panels.all(), **PAGE_EVENT)
