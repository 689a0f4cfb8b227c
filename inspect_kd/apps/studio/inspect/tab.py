"""The Inspect tab: uploads and thresholds on the left, the selected part in the middle, all parts on the right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.bar import Bar, category_choices
from inspect_kd.apps.studio.handlers import PAGE_EVENT, errors_in_one_line, page_session
from inspect_kd.apps.studio.inspect import events
from inspect_kd.apps.studio.inspect.batches import write_export
from inspect_kd.apps.studio.inspect.histogram import slider_range
from inspect_kd.apps.studio.inspect.panels import ON_LOAD_GALLERY, ON_LOAD_VIEWER, Controls, Panels
from inspect_kd.apps.studio.studio import Studio, address
from inspect_kd.types import Decision

STUDIO_HTML: dict[str, Any] = {"js_on_load": None, "apply_default_css": False, "elem_classes": "studio"}
"""For HTML without a script, in the style of studio.css."""
TOOLBAR = (
    f'<label>{texts.OPACITY}<input type="range" min="0" max="100" value="65" data-view="heat"></label>'
    f'<label><input type="checkbox" checked data-view="contours">{texts.CONTOURS}</label>'
    f'<label><input type="checkbox" checked data-view="numbers">{texts.NUMBERS}</label>'
    f'<span class="scale" aria-hidden="true"><small>½</small><i></i><small>2</small><small>{texts.HEAT_SCALE}</small></span>'
)


@dataclass(frozen=True, slots=True)
class MiddleColumn:
    """The selected part, with the buttons below it."""

    viewer: gr.HTML
    regions: gr.HTML
    buttons: dict[str, gr.Button]


def build(studio: Studio, bar: Bar, page: gr.Blocks) -> None:
    """Lay the tab out in the open Blocks and connect its events."""
    with gr.Row(elem_id="bench", equal_height=False):
        with gr.Column(elem_id="left", min_width=0):
            controls, progress, scores = _build_left(studio)
        with gr.Column(elem_id="middle", min_width=0):
            middle = _build_middle()
        with gr.Column(elem_id="right", min_width=0):
            gallery = gr.HTML(elem_id="gallery", **(STUDIO_HTML | {"js_on_load": ON_LOAD_GALLERY}))
            _build_downloads(studio)
    panels = Panels(progress, middle.viewer, middle.regions, gallery, scores)
    events.connect_batches(studio, bar, controls, panels)
    events.connect_thresholds(studio, bar, controls, panels)
    events.connect_gallery(studio, panels, middle.buttons)
    events.connect_load(studio, page, panels)


def _build_left(studio: Studio) -> tuple[Controls, gr.HTML, gr.HTML]:
    files = gr.File(label=texts.DROP, file_count="multiple", elem_id="drop", height=72)
    progress = gr.HTML(elem_id="progress", **STUDIO_HTML)
    with gr.Row(elem_id="bring", elem_classes="tight"):
        examples = gr.Button(texts.EXAMPLES, size="sm", visible=studio.settings.examples is not None)
        clear = gr.Button(texts.CLEAR, size="sm", elem_id="clear")
        stop = gr.Button(texts.CANCEL, size="sm", elem_id="stop", variant="stop")
    with gr.Accordion(texts.CAMERA, open=False, elem_id="camera-box"):
        camera = gr.Image(
            label=texts.CAMERA_PICTURE,
            sources=["webcam"],
            type="filepath",
            image_mode=None,  # otherwise Gradio would convert the picture
            height=220,
            elem_id="camera",
            webcam_options=gr.WebcamOptions(mirror=False),
        )
    gr.HTML(f"<h2>{texts.THRESHOLDS}</h2>", **STUDIO_HTML)
    reinspect, reject = _build_sliders(studio)
    scores = gr.HTML(elem_id="scores", **STUDIO_HTML)
    reset = gr.Button(texts.RESET, size="sm", elem_id="reset")
    with gr.Accordion(texts.SAVE_CALIBRATION, open=False, elem_id="sign-off"):
        gr.HTML(f'<p class="soft">{texts.SIGN_OFF_WHY}</p>', js_on_load=None, elem_classes="studio")
        signer_name = gr.Textbox(label=texts.SIGN_OFF_BY, max_lines=1, elem_id="signer")
        sign_off_button = gr.Button(texts.SIGN_OFF_BUTTON, size="sm", variant="primary", elem_id="sign")
        sign_off_message = gr.HTML(elem_id="signed", **STUDIO_HTML)
    sign_off = (signer_name, sign_off_button, sign_off_message)
    return Controls(files, camera, examples, clear, stop, reinspect, reject, reset, *sign_off), progress, scores


def _build_sliders(studio: Studio) -> tuple[gr.Slider, gr.Slider]:
    _, category = category_choices(studio, studio.library.names[0])
    thresholds = studio.library.open(None).card.calibration.for_category(category or None).thresholds
    slider_max = slider_range(thresholds)
    shared: dict[str, Any] = {"step": 0.001, "precision": 3, "buttons": []}
    return (
        gr.Slider(
            0, slider_max, round(thresholds.reinspect, 3), label=texts.REINSPECT_ABOVE, elem_id="reinspect", **shared
        ),
        gr.Slider(0, slider_max, round(thresholds.reject, 3), label=texts.NG_ABOVE, elem_id="reject", **shared),
    )


def _build_middle() -> MiddleColumn:
    viewer = gr.HTML(elem_id="viewer", **(STUDIO_HTML | {"js_on_load": ON_LOAD_VIEWER}))
    gr.HTML(TOOLBAR, elem_id="toolbar", **STUDIO_HTML)
    with gr.Row(elem_id="say", elem_classes="tight"):
        buttons = {
            "previous": gr.Button(f"‹ {texts.PREVIOUS}", elem_id="previous"),
            "ok": gr.Button(f"{texts.ICONS[Decision.OK]} {texts.PART_IS_OK}", elem_id="say-ok"),
            "ng": gr.Button(f"{texts.ICONS[Decision.NG]} {texts.PART_IS_NG}", elem_id="say-ng"),
            "next": gr.Button(f"{texts.NEXT} ›", elem_id="next"),
        }
    regions = gr.HTML(elem_id="regions", **STUDIO_HTML)
    return MiddleColumn(viewer, regions, buttons)


def _build_downloads(studio: Studio) -> None:
    """One button per format; a click writes the file, and the page fetches it."""
    with gr.Row(elem_id="downloads", elem_classes="tight"):
        link = gr.Textbox(visible="hidden", elem_id="link")
        for form, name in texts.FORMATS.items():
            button = gr.Button(f"⤓ {name}", size="sm", elem_id=f"download-{form}")
            button.click(_write_download(studio, form), None, link, **PAGE_EVENT).then(
                None, link, None, js="link => window.studioDownload(link)", **PAGE_EVENT
            )


def _write_download(studio: Studio, form: str) -> Callable[[gr.Request], str]:
    def write_download(request: gr.Request) -> str:
        with errors_in_one_line():
            return address(write_export(studio, page_session(studio, request), form))

    return write_download
