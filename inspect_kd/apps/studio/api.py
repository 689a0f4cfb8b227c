"""Named endpoints for programs: what a person can do on the page, a client can do with `gradio_client`.

The same desk rules: thresholds re-decide what was inspected in this session, without the model.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.events import api

from inspect_kd.apps.studio.batches import DEVICE, inspect_files, write_export
from inspect_kd.apps.studio.desk import Desk, Refusal
from inspect_kd.apps.studio.exports import rows
from inspect_kd.apps.studio.sessions import in_one_line, program_desk, typed
from inspect_kd.apps.studio.studio import Studio
from inspect_kd.errors import BadInput
from inspect_kd.export.card import card_facts
from inspect_kd.types import Decision


def build(studio: Studio) -> None:
    _files_endpoints(studio)
    _endpoints(studio)


def _files_endpoints(studio: Studio) -> None:
    """Those that send or receive files need Gradio's own components, out of sight."""
    files = gr.File(file_count="multiple", visible=False, label="images")
    artifact = gr.Textbox(visible=False, label="artifact")
    category = gr.Textbox(visible=False, label="category")
    form = gr.Textbox("csv", visible=False, label="form")
    answers, file = gr.JSON(visible=False, label="answers"), gr.File(visible=False, label="file")
    button = gr.Button(visible=False)

    def inspect(images: list[str], artifact: str, category: str, request: gr.Request) -> list[dict[str, Any]]:
        desk = program_desk(studio, request)
        _choose(studio, desk, artifact, category)
        found: list[dict[str, Any]] = []
        for answer in inspect_files(studio, desk, images or []):
            if isinstance(answer, Refusal):
                found.append({"image": answer.name, "decision": str(Decision.NG), "error": answer.reason})
            else:
                found.append({"part": answer.number, **desk.inspection(answer).to_json()})
        return found

    def fetch(form: str, request: gr.Request) -> str:
        with in_one_line():
            return str(write_export(studio, program_desk(studio, request), form))

    button.click(
        inspect,
        [files, artifact, category],
        answers,
        api_name="inspect",
        api_description="Inspect images: a list of answers as `inspect-kd predict` prints them, each with its `part` number. "
        "A file that cannot be read is NG with its `error`. `artifact` and `category` may be empty.",
        concurrency_id=DEVICE,
        concurrency_limit=1,
    )
    button.click(fetch, form, file, api_name="export", api_description="The desk as a file: `csv`, `json` or `html`.")


def _endpoints(studio: Studio) -> None:
    def artifacts() -> list[str]:
        """Names of the artifacts on offer, the first one is the default."""
        return studio.shelf.names

    def card(artifact: str) -> dict[str, Any]:
        """An artifact's card: recipe, calibration, licences, parity, versions."""
        with in_one_line():
            return dict(card_facts(studio.shelf.take(artifact).card))

    def decide(reinspect: float, reject: float, request: gr.Request) -> dict[str, Any]:
        """Decide all parts of this session anew under two thresholds, from stored scores; no model runs."""
        desk = program_desk(studio, request)
        with in_one_line(), desk.lock:
            desk.move(reinspect, reject)
            decisions = {str(part.number): str(desk.thresholds.decide(part.score)) for part in desk.all_parts()}
            return {**desk.what_if().to_json(), "decisions": decisions}

    def parts(request: gr.Request) -> list[dict[str, Any]]:
        """All parts of this session with their regions under the present thresholds, the worst first."""
        desk = program_desk(studio, request)
        with desk.lock:
            return rows(desk)

    def mark(part: int, verdict: str, by: str, request: gr.Request) -> dict[str, Any]:
        """Store what a person says of a part, OK or NG, for `label-next --known` and `train --labelled`."""
        desk = program_desk(studio, request)
        with in_one_line(), desk.lock:
            if part not in desk.parts or verdict not in (Decision.OK, Decision.NG):
                raise BadInput(f"part {part} must lie on the desk, and a person says OK or NG")
            chosen = desk.parts[part]
            path = studio.marks.put(chosen, Decision(verdict), studio.context(desk, request.username or by))
            return {"part": part, "verdict": verdict, "wrong_call": chosen.wrong(desk.thresholds), "stored": path.name}

    def save_calibration(by: str, reinspect: float, reject: float, request: gr.Request) -> dict[str, Any]:
        """Sign off two thresholds by name: a new file for `inspect-kd predict --calibration`, nothing is overwritten."""
        desk = program_desk(studio, request)
        name = request.username or by
        with in_one_line(), desk.lock:
            before = desk.thresholds
            desk.move(reinspect, reject)
            try:
                path = studio.sign_off(desk, name)
            except BaseException:  # what was refused changes nothing
                desk.thresholds = before
                raise
            return {"file": path.name, "by": name, "thresholds": desk.what_if().to_json()["thresholds"]}

    def clear(request: gr.Request) -> int:
        """Take all parts off this session's desk; returns how many there were."""
        desk = program_desk(studio, request)
        count = len(desk.parts)
        desk.clear()
        return count

    for endpoint in (artifacts, card, decide, parts, mark, save_calibration, clear):
        api(typed(endpoint), api_name=endpoint.__name__)


def _choose(studio: Studio, desk: Desk, artifact: str, category: str) -> None:
    """Only what was said changes; another artifact inspects what lies there already, too."""
    name = artifact or desk.artifact
    if (name, category or desk.category) != (desk.artifact, desk.category):
        with in_one_line():
            for _ in desk.change(name, category or None):
                pass
