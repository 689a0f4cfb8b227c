"""The Inspect tab: parts in, thresholds left, the chosen part in the middle, all of them on the right.

Every handler does one thing to the caller's desk and shows the desk again. Sliders answer `change` with "always_last": a
drag ends with the limits it ended with, and each answer names the limits it was made with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.batches import (
    DEVICE,
    PRIVATE,
    follow,
    inspect_examples,
    inspect_files,
    page_of,
    select_last,
    write_export,
)
from inspect_kd.apps.studio.desk import Desk
from inspect_kd.apps.studio.histogram import slider_range
from inspect_kd.apps.studio.sessions import in_one_line, page_desk
from inspect_kd.apps.studio.shelf import example_images
from inspect_kd.apps.studio.studio import Studio, address
from inspect_kd.errors import InspectKDError, UsageError
from inspect_kd.types import Decision

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
progress('value', () => window.studioKeepFocus(element));
"""
ON_LOAD_VIEWER = "progress('value', () => window.studioKeepWipe());"


@dataclass(frozen=True, slots=True)
class Bar:
    artifact: gr.Dropdown
    category: gr.Dropdown


@dataclass(frozen=True, slots=True)
class Panels:
    """What is shown again whenever something has changed."""

    progress: gr.HTML
    viewer: gr.HTML
    regions: gr.HTML
    gallery: gr.HTML
    scores: gr.HTML

    def all(self) -> list[gr.HTML]:
        return [self.progress, self.viewer, self.regions, self.gallery, self.scores]


@dataclass(frozen=True, slots=True)
class Controls:
    files: gr.File
    camera: gr.Image
    examples: gr.Button
    clear: gr.Button
    stop: gr.Button
    reinspect: gr.Slider
    reject: gr.Slider
    reset: gr.Button
    signer: gr.Textbox
    sign: gr.Button
    signed: gr.HTML


def bar(studio: Studio) -> Bar:
    """On top of every tab: whose eyes look."""
    with gr.Row(elem_id="bar"):
        gr.HTML(f'<h1><i aria-hidden="true">◧</i> {texts.TITLE}</h1>', elem_id="brand", js_on_load=None)
        artifact = gr.Dropdown(
            studio.shelf.names, value=studio.shelf.names[0], label=texts.WHICH_ARTIFACT, elem_id="artifact-choice"
        )
        names, value = categories(studio, studio.shelf.names[0])
        category = gr.Dropdown(names, value=value, label=texts.WHICH_CATEGORY, elem_id="category-choice")
        keys = "".join(f"<span><kbd>{key}</kbd>{name}</span>" for key, name in texts.KEYS)
        gr.HTML(
            f'<div class="keys">{keys}</div><button type="button" data-theme-switch aria-label="{texts.THEME_SWITCH}" '
            f'title="{texts.THEME_SWITCH}">◐</button>',
            elem_id="keys",
            js_on_load=None,
        )
    return Bar(artifact, category)


def categories(studio: Studio, artifact: str) -> tuple[list[tuple[str, str]], str]:
    """Choices of the dropdown and its value; "" stands for all together."""
    known = studio.shelf.take(artifact).card.categories
    if len(known) == 1:
        return [(known[0], known[0])], known[0]
    return [(texts.ALL_CATEGORIES, ""), *((name, name) for name in known)], ""


def choice_of(studio: Studio, desk: Desk) -> tuple[Any, ...]:
    """Artifact, category and sliders as the desk has them; a change that was stopped leaves the page at others."""
    with desk.lock:
        names, _ = categories(studio, desk.artifact)
        most, limits = slider_range(desk.usual), desk.thresholds
        return (
            gr.update(value=desk.artifact),
            gr.update(choices=names, value=desk.category or ""),
            gr.update(maximum=most, value=round(limits.reinspect, 3)),
            gr.update(maximum=most, value=round(limits.reject, 3)),
        )


def build(studio: Studio, bar: Bar, page: gr.Blocks) -> None:
    with gr.Row(elem_id="bench", equal_height=False):
        with gr.Column(elem_id="left", min_width=0):
            controls, progress, scores = _left(studio)
        with gr.Column(elem_id="middle", min_width=0):
            shown, regions, buttons = _middle()
        with gr.Column(elem_id="right", min_width=0):
            cards = gr.HTML(
                elem_id="gallery", js_on_load=ON_LOAD_GALLERY, apply_default_css=False, elem_classes="studio"
            )
            _downloads(studio)
    panels = Panels(progress, shown, regions, cards, scores)
    _wire_batches(studio, bar, controls, panels)
    _wire_thresholds(studio, bar, controls, panels)
    _wire_clicks(studio, panels, buttons)
    _wire_load(studio, page, panels)


def _left(studio: Studio) -> tuple[Controls, gr.HTML, gr.HTML]:
    files = gr.File(label=texts.DROP, file_count="multiple", elem_id="drop", height=72)
    progress = gr.HTML(elem_id="progress", js_on_load=None, apply_default_css=False, elem_classes="studio")
    with gr.Row(elem_id="bring", elem_classes="tight"):
        examples = gr.Button(texts.EXAMPLES, size="sm", visible=studio.settings.examples is not None)
        clear = gr.Button(texts.CLEAR, size="sm", elem_id="clear")
        stop = gr.Button(texts.CANCEL, size="sm", elem_id="stop", variant="stop")
    with gr.Accordion(texts.CAMERA, open=False, elem_id="camera-box"):
        camera = gr.Image(
            label=texts.CAMERA_PICTURE,
            sources=["webcam"],
            type="filepath",
            image_mode=None,  # as it was sent: Gradio would keep a converted copy
            height=220,
            elem_id="camera",
            webcam_options=gr.WebcamOptions(mirror=False),
        )
    limits = studio.shelf.take(None).card.calibration.limits_for(categories(studio, studio.shelf.names[0])[1] or None)
    most = slider_range(limits.thresholds)
    gr.HTML(f"<h2>{texts.THRESHOLDS}</h2>", js_on_load=None, apply_default_css=False, elem_classes="studio")
    reinspect = gr.Slider(
        0,
        most,
        round(limits.thresholds.reinspect, 3),
        step=0.001,
        label=texts.REINSPECT_ABOVE,
        elem_id="reinspect",
        precision=3,
        buttons=[],
    )
    reject = gr.Slider(
        0,
        most,
        round(limits.thresholds.reject, 3),
        step=0.001,
        label=texts.NG_ABOVE,
        elem_id="reject",
        precision=3,
        buttons=[],
    )
    scores = gr.HTML(elem_id="scores", js_on_load=None, apply_default_css=False, elem_classes="studio")
    reset = gr.Button(texts.RESET, size="sm", elem_id="reset")
    with gr.Accordion(texts.SAVE_CALIBRATION, open=False, elem_id="sign-off"):
        gr.HTML(f'<p class="soft">{texts.SIGN_OFF_WHY}</p>', js_on_load=None, elem_classes="studio")
        signer = gr.Textbox(label=texts.SIGN_OFF_BY, max_lines=1, elem_id="signer")
        sign = gr.Button(texts.SIGN_OFF_BUTTON, size="sm", variant="primary", elem_id="sign")
        signed = gr.HTML(elem_id="signed", js_on_load=None, apply_default_css=False, elem_classes="studio")
    controls = Controls(files, camera, examples, clear, stop, reinspect, reject, reset, signer, sign, signed)
    return controls, progress, scores


def _middle() -> tuple[gr.HTML, gr.HTML, dict[str, gr.Button]]:
    shown = gr.HTML(elem_id="viewer", js_on_load=ON_LOAD_VIEWER, apply_default_css=False, elem_classes="studio")
    gr.HTML(TOOLBAR, elem_id="toolbar", js_on_load=None, apply_default_css=False, elem_classes="studio")
    with gr.Row(elem_id="say", elem_classes="tight"):
        previous = gr.Button(f"‹ {texts.PREVIOUS}", elem_id="previous")
        ok = gr.Button(f"{texts.ICONS[Decision.OK]} {texts.PART_IS_OK}", elem_id="say-ok")
        ng = gr.Button(f"{texts.ICONS[Decision.NG]} {texts.PART_IS_NG}", elem_id="say-ng")
        following = gr.Button(f"{texts.NEXT} ›", elem_id="next")
    regions = gr.HTML(elem_id="regions", js_on_load=None, apply_default_css=False, elem_classes="studio")
    return shown, regions, {"previous": previous, "ok": ok, "ng": ng, "next": following}


TOOLBAR = (
    f'<label>{texts.OPACITY}<input type="range" min="0" max="100" value="65" data-view="heat"></label>'
    f'<label><input type="checkbox" checked data-view="contours">{texts.CONTOURS}</label>'
    f'<label><input type="checkbox" checked data-view="numbers">{texts.NUMBERS}</label>'
    f'<span class="scale" aria-hidden="true"><small>½</small><i></i><small>2</small><small>{texts.HEAT_SCALE}</small></span>'
)


def _downloads(studio: Studio) -> None:
    """A button a format; the file is made when it is asked for, and fetched by the page."""
    with gr.Row(elem_id="downloads", elem_classes="tight"):
        link = gr.Textbox(visible="hidden", elem_id="link")
        for form, name in texts.FORMATS.items():
            button = gr.Button(f"⤓ {name}", size="sm", elem_id=f"download-{form}")
            button.click(_download(studio, form), None, link, **PRIVATE).then(
                None, link, None, js="link => window.studioDownload(link)", **PRIVATE
            )


def _download(studio: Studio, form: str) -> Callable[[gr.Request], str]:
    def make(request: gr.Request) -> str:
        with in_one_line():
            return address(write_export(studio, page_desk(studio, request), form))

    return make


def _wire_batches(studio: Studio, bar: Bar, controls: Controls, panels: Panels) -> None:
    """Everything that runs the model: one at a time, and each can be stopped."""

    def uploaded(files: list[str] | None, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        desk, files = page_desk(studio, request), files or []
        for panels in follow(desk, inspect_files(studio, desk, files), len(files)):
            yield None, *panels

    def pictured(file: str | None, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        desk, files = page_desk(studio, request), [file] if file else []
        name = time.strftime(texts.CAMERA_NAME)
        steps = (desk.add(content, name) for _, content in studio.uploads.read(files) if content is not None)
        for panels in follow(desk, select_last(desk, steps), len(files)):
            # Emptied, it shows the live picture again.
            yield None, *panels

    def offered(request: gr.Request) -> Iterator[tuple[str, ...]]:
        desk = page_desk(studio, request)
        images = example_images(studio.settings.examples) if studio.settings.examples else []
        steps = inspect_examples(desk, images, studio.settings.max_upload_mb * 2**20)
        yield from follow(desk, steps, len(images))

    def chosen(artifact: str, category: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        desk = page_desk(studio, request)
        other = artifact != desk.artifact
        with in_one_line():
            wanted = category if not other and category else categories(studio, artifact)[1]
            steps = desk.change(artifact, wanted or None)
            for panels in follow(desk, steps, len(desk.parts) if other else 0):
                yield *[gr.skip()] * len(choice), *panels
        yield *choice_of(studio, desk), *page_of(desk)

    runs: dict[str, Any] = {"concurrency_id": DEVICE, "concurrency_limit": 1, **PRIVATE}
    everything = panels.all()
    choice = [bar.artifact, bar.category, controls.reinspect, controls.reject]
    changes = [
        box.input(chosen, [bar.artifact, bar.category], [*choice, *everything], **runs)
        for box in (bar.artifact, bar.category)
    ]
    started: list[dict[str, Any]] = [
        controls.files.upload(uploaded, controls.files, [controls.files, *everything], **runs),
        pictures := controls.camera.input(pictured, controls.camera, [controls.camera, *everything], **runs),
        controls.examples.click(offered, None, everything, **runs),
        *changes,
    ]

    def unchanged(request: gr.Request) -> tuple[Any, ...]:
        return choice_of(studio, page_desk(studio, request))

    for change in changes:
        change.failure(unchanged, None, choice, **PRIVATE)

    pictures.then(None, None, None, js="() => window.studioLiveAgain()", **PRIVATE)

    def stop_batch(request: gr.Request) -> tuple[Any, ...]:
        desk = page_desk(studio, request)
        desk.stop_change()
        return *choice_of(studio, desk), *page_of(
            desk, f'<p class="soft">{texts.STOPPED.format(done=len(desk.parts))}</p>'
        )

    def cleared(request: gr.Request) -> tuple[Any, ...]:
        desk = page_desk(studio, request)
        desk.clear()
        return None, *choice_of(studio, desk), *page_of(desk)

    controls.stop.click(stop_batch, None, [*choice, *everything], cancels=started, **PRIVATE)
    controls.clear.click(cleared, None, [controls.camera, *choice, *everything], cancels=started, **PRIVATE)


def _wire_thresholds(studio: Studio, bar: Bar, controls: Controls, panels: Panels) -> None:
    shown = [panels.viewer, panels.regions, panels.gallery, panels.scores]

    def moved(reinspect: float, reject: float, request: gr.Request) -> tuple[str, ...]:
        desk = page_desk(studio, request)
        with in_one_line():
            desk.move(reinspect, reject)
        return page_of(desk)[1:]

    # One event for both: as two, the answer to the first slider could overtake that to the second and undo it.
    gr.on(
        [controls.reinspect.change, controls.reject.change],
        moved,
        [controls.reinspect, controls.reject],
        shown,
        trigger_mode="always_last",
        concurrency_limit=8,
        **PRIVATE,
    )

    def usual(request: gr.Request) -> tuple[float, float]:
        limits = page_desk(studio, request).usual
        return round(limits.reinspect, 3), round(limits.reject, 3)

    controls.reset.click(usual, None, [controls.reinspect, controls.reject], **PRIVATE)

    def sign(by: str, artifact: str, category: str, reinspect: float, reject: float, request: gr.Request) -> str:
        desk = page_desk(studio, request)
        by = request.username or by
        try:
            with desk.lock:
                # What a person signs is what the page showed, not what another event has made of it since.
                limits = desk.limits_at(reinspect, reject)
                if (artifact, category or None, limits) != (desk.artifact, desk.category, desk.thresholds):
                    raise UsageError(texts.NOT_AS_SHOWN)
                path = studio.sign_off(desk, by)
        except InspectKDError as error:
            return f'<p class="bad" role="alert">{texts.NOT_SIGNED_OFF.format(reason=escape(str(error)))}</p>'
        said = texts.SIGNED_OFF.format(
            file=escape(path.name),
            by=escape(by),
            artifact=escape(studio.shelf.paths[artifact].name),
            path=escape(str(path)),
        )
        return f'<p class="good" role="status">{said}</p>'

    shown_choice = [bar.artifact, bar.category, controls.reinspect, controls.reject]
    controls.sign.click(sign, [controls.signer, *shown_choice], controls.signed, **PRIVATE)


def _wire_clicks(studio: Studio, panels: Panels, buttons: dict[str, gr.Button]) -> None:
    """Choosing, filtering, sorting, saying what a part is: each does one thing to the desk."""
    shown = [panels.viewer, panels.regions, panels.gallery]
    many: dict[str, Any] = {"trigger_mode": "multiple", "concurrency_limit": 8, **PRIVATE}

    def then(act: Callable[[Desk, gr.EventData, gr.Request], None]) -> Callable[..., tuple[str, ...]]:
        def handler(event: gr.EventData, request: gr.Request) -> tuple[str, ...]:
            desk = page_desk(studio, request)
            with in_one_line():
                act(desk, event, request)
            return page_of(desk)[1:4]

        return handler

    def say(verdict: Decision) -> Callable[[str, gr.Request], tuple[str, ...]]:
        def handler(shown_part: str, request: gr.Request) -> tuple[str, ...]:
            desk = page_desk(studio, request)
            if shown_part:
                with in_one_line():
                    _mark(studio, desk, shown_part, verdict, request.username or "")
            return page_of(desk)[1:4]

        return handler

    cards = panels.gallery
    cards.pick(then(lambda desk, event, _: desk.select(int(event.part))), None, shown, **many)
    cards.filter(then(lambda desk, event, _: desk.show(str(event.name))), None, shown, **many)
    cards.order(then(lambda desk, event, _: desk.sort(str(event.name))), None, shown, **many)
    cards.turn(then(lambda desk, event, _: desk.turn(int(event.by))), None, shown, **many)
    buttons["next"].click(then(lambda desk, *_: desk.step(1)), None, shown, **many)
    buttons["previous"].click(then(lambda desk, *_: desk.step(-1)), None, shown, **many)
    # One queue for both, in the order of the clicks: Gradio runs events of different queues as it likes.
    marking: dict[str, Any] = many | {"concurrency_id": "mark", "concurrency_limit": 1}
    shown_part = gr.Textbox(visible="hidden", elem_id="shown-part")
    for name, verdict in (("ok", Decision.OK), ("ng", Decision.NG)):
        buttons[name].click(say(verdict), shown_part, shown, js="() => window.studioShownPart()", **marking)


def _mark(studio: Studio, desk: Desk, shown_part: str, verdict: Decision, by: str) -> None:
    """Store a verdict on the part that its sender saw: its key, then the mark that it had."""
    key, _, seen = shown_part.partition(" ")
    with desk.lock:  # part, artifact and limits of one moment
        part = next((part for part in desk.all_parts() if part.key == key), None)
        if part is None:
            raise UsageError(texts.MARK_TOO_LATE)
        context = studio.context(desk, by)
        # Said twice is taken back: a slip of the finger must not teach the next training.
        if seen == verdict:
            studio.marks.take_back(part, context)
        else:
            studio.marks.put(part, verdict, context)


def _wire_load(studio: Studio, page: gr.Blocks, panels: Panels) -> None:
    def first(request: gr.Request) -> tuple[str, ...]:
        return page_of(page_desk(studio, request))

    page.load(first, None, panels.all(), **PRIVATE)
