"""Named endpoints for programs: everything that a person can do in the Inspect tab."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.events import api

from inspect_kd.apps.studio.handlers import MODEL_EVENT, api_session, errors_in_one_line, with_checked_types
from inspect_kd.apps.studio.inspect.batches import inspect_files, write_export
from inspect_kd.apps.studio.inspect.exports import export_rows
from inspect_kd.apps.studio.session import RefusedFile, Session
from inspect_kd.apps.studio.studio import Studio
from inspect_kd.errors import BadInput
from inspect_kd.types import Decision


def build(studio: Studio) -> None:
    """Register the endpoints in the open Blocks."""
    _file_endpoints(studio)
    _session_endpoints(studio)


def _file_endpoints(studio: Studio) -> None:
    """Endpoints that send or receive files; they need components of Gradio, which are hidden."""
    files = gr.File(file_count="multiple", visible=False, label="images")
    artifact = gr.Textbox(visible=False, label="artifact")
    category = gr.Textbox(visible=False, label="category")
    form = gr.Textbox("csv", visible=False, label="form")
    records, file = gr.JSON(visible=False, label="answers"), gr.File(visible=False, label="file")
    button = gr.Button(visible=False)

    def inspect(images: list[str], artifact: str, category: str, request: gr.Request) -> list[dict[str, Any]]:
        session = api_session(studio, request)
        _change_artifact(session, artifact, category)
        results: list[dict[str, Any]] = []
        for result in inspect_files(studio, session, images or []):
            if isinstance(result, RefusedFile):
                results.append({"image": result.name, "decision": str(Decision.NG), "error": result.reason})
            else:
                results.append({"part": result.number, **session.inspection(result).to_json()})
        return results

    # Programs pass the export's format as `form`: the names of parameters are part of the API.
    def fetch(form: str, request: gr.Request) -> str:
        with errors_in_one_line():
            return str(write_export(studio, api_session(studio, request), form))

    button.click(
        inspect,
        [files, artifact, category],
        records,
        api_name="inspect",
        api_description="Inspect images: one record per image, as `inspect-kd predict` prints it, with its `part` number. "
        "A file that cannot be read is NG with its `error`. `artifact` and `category` may be empty.",
        **MODEL_EVENT,
    )
    description = "The inspected parts as a file: `csv`, `json` or `html`."
    button.click(fetch, form, file, api_name="export", api_description=description)


def _session_endpoints(studio: Studio) -> None:
    def decide(reinspect: float, reject: float, request: gr.Request) -> dict[str, Any]:
        """Decide all parts of this session anew under two thresholds, from stored scores; no model runs."""
        session = api_session(studio, request)
        with errors_in_one_line(), session.lock:
            session.set_thresholds(reinspect, reject)
            decisions = {str(part.number): str(session.thresholds.decide(part.score)) for part in session.all_parts()}
            return {**session.what_if().to_json(), "decisions": decisions}

    def parts(request: gr.Request) -> list[dict[str, Any]]:
        """All parts of this session with their regions under the present thresholds, the highest score first."""
        session = api_session(studio, request)
        with session.lock:
            return export_rows(session)

    def mark(part: int, verdict: str, by: str, request: gr.Request) -> dict[str, Any]:
        """Store a person's mark on a part, OK or NG, for `label-next --known` and `train --labelled`."""
        session = api_session(studio, request)
        with errors_in_one_line(), session.lock:
            if part not in session.parts or verdict not in (Decision.OK, Decision.NG):
                raise BadInput(
                    f"part {part} with mark {verdict}: give the number of a part of this session, and OK or NG"
                )
            marked_part = session.parts[part]
            context = studio.mark_context(session, request.username or by)
            path = studio.marks.put(marked_part, Decision(verdict), context)
            is_wrong = marked_part.is_wrong_call(session.thresholds)
            return {"part": part, "verdict": verdict, "wrong_call": is_wrong, "stored": path.name}

    def save_calibration(by: str, reinspect: float, reject: float, request: gr.Request) -> dict[str, Any]:
        """Sign off two thresholds in a person's name.

        This writes a new file for `inspect-kd predict --calibration`; nothing is overwritten.
        """
        session = api_session(studio, request)
        name = request.username or by
        with errors_in_one_line(), session.lock:
            former_thresholds = session.thresholds
            session.set_thresholds(reinspect, reject)
            try:
                path = studio.sign_off(session, name)
            except BaseException:  # a refused sign-off must change nothing
                session.thresholds = former_thresholds
                raise
            return {"file": path.name, "by": name, "thresholds": session.what_if().to_json()["thresholds"]}

    def clear(request: gr.Request) -> int:
        """Remove all parts of this session; returns how many there were."""
        session = api_session(studio, request)
        count = len(session.parts)
        session.clear()
        return count

    for endpoint in (decide, parts, mark, save_calibration, clear):
        api(with_checked_types(endpoint), api_name=endpoint.__name__)


def _change_artifact(session: Session, artifact: str, category: str) -> None:
    """Change artifact and category; an empty name changes nothing. A new artifact inspects the session's parts again."""
    name = artifact or session.artifact
    if (name, category or session.category) != (session.artifact, session.category):
        with errors_in_one_line():
            for _ in session.change_artifact(name, category or None):
                pass
