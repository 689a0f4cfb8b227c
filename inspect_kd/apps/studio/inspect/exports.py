"""The session's parts as CSV, JSON or one self-contained HTML page; refused files are listed as NG."""

from __future__ import annotations

import base64
import json
from html import escape
from typing import Any

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.inspect.gallery import not_found_note, refused_heading, refused_list
from inspect_kd.apps.studio.inspect.histogram import histogram
from inspect_kd.apps.studio.inspect.what_if import held_out_scores
from inspect_kd.apps.studio.session import MAX_REFUSED, Session
from inspect_kd.errors import UsageError
from inspect_kd.report.html import document, figure_boxes
from inspect_kd.spreadsheet import csv_text
from inspect_kd.types import Decision, format_score, is_not_found

COLUMNS = (
    "image",
    "decision",
    "score",
    "reinspect_above",
    "ng_above",
    "person_says",
    "regions",
    "worst_x",
    "worst_y",
    "worst_width",
    "worst_height",
    "width",
    "height",
    "sha256",
    "error",
    "cause",
    "explanation",
)


def export(session: Session, format_name: str) -> str:
    """Return the content of an export: csv, json or html."""
    writers = {"csv": as_csv, "json": as_json, "html": as_html}
    if format_name not in writers:
        raise UsageError(f"no export named '{format_name}'; there are: {', '.join(writers)}")
    return writers[format_name](session)


def export_rows(session: Session) -> list[dict[str, Any]]:
    """One record per part, the highest score first, then one per refused file, and one for all that are not listed."""
    records = []
    for part in sorted(session.all_parts(), key=lambda part: -part.score):
        mark = str(part.mark) if part.mark else None
        records.append(session.inspection(part).to_json() | {"person_says": mark, "sha256": part.sha256})
    refused = [
        {"image": file.name, "decision": str(Decision.NG), "error": file.reason} for file in session.refused_files
    ]
    unlisted = session.refused_count - len(session.refused_files)
    if unlisted > 0:
        name, error = texts.REFUSED_MORE.format(count=unlisted), texts.REFUSED_UNLISTED.format(maximum=MAX_REFUSED)
        refused.append({"image": name, "decision": str(Decision.NG), "error": error})
    return records + refused


def as_json(session: Session) -> str:
    """All records, with artifact, category and thresholds."""
    inspector = session.inspector
    content = {
        "artifact": {"name": session.artifact, "sha256": inspector.digest, "recipe": inspector.card.recipe_digest},
        "category": session.category,
        "what_if": session.what_if().to_json(),
        "parts": export_rows(session),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def as_csv(session: Session) -> str:
    """One line per record."""
    return csv_text(COLUMNS, map(_csv_row, export_rows(session)))


def as_html(session: Session) -> str:
    """A page with counts, histogram and pictures."""
    thresholds = session.thresholds
    counts = session.what_if().inspected
    decisions = [(counts[decision], f"{texts.ICONS[decision]} {decision}") for decision in reversed(Decision)]
    held_out = held_out_scores(session.inspector.card.calibration, session.category)
    scores = [part.score for part in session.all_parts()]
    chart = histogram(scores, held_out, thresholds, session.default_thresholds.highest_allowed)
    note = not_found_note(scores, held_out)
    legend = texts.HISTOGRAM.format(
        shown=sum(not is_not_found(score) for score in scores), sound=sum(not is_not_found(score) for score in held_out)
    )
    thresholds_text = texts.BOTH_THRESHOLDS.format(reinspect=thresholds.reinspect, reject=thresholds.reject)
    return document(
        title=f"{session.artifact} · {texts.TITLE}",
        heading=session.artifact,
        subtitle=f'<p class="soft">{thresholds_text} · sha256 {session.inspector.digest[:16]}…</p>',
        body=f'{figure_boxes(decisions)}<div class="card">{chart}<p class="soft">{legend}</p>{note}</div>{_refused(session)}'
        f'<h2>{texts.FILES} ({len(session.parts)})</h2><div class="gallery single">{_pictures(session)}</div>',
        style=STYLE,
    )


def _refused(session: Session) -> str:
    if not session.refused_files:
        return ""
    count = session.refused_count
    return f"<h2>{refused_heading(count)}</h2>{refused_list(session.refused_files, count)}"


STYLE = """
.gallery.single { grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); } .gallery.single img { height: 180px; }
.histogram { width: 100%; max-width: 520px; display: block; }
.histogram text { fill: var(--soft); font-size: 9px; } .histogram .axis { stroke: var(--soft); }
.histogram .ok { fill: var(--ok); } .histogram .re { fill: var(--re); } .histogram .ng { fill: var(--ng); }
.histogram .cal { fill: var(--cal); } .histogram .band-re { fill: var(--re); opacity: .1; }
.histogram .band-ng { fill: var(--ng); opacity: .1; } .histogram line.limit { stroke: var(--ink); stroke-dasharray: 4 3; }
"""


def _pictures(session: Session) -> str:
    figures = []
    for part in sorted(session.all_parts(), key=lambda part: -part.score):
        decision = session.thresholds.decide(part.score)
        picture = base64.b64encode(part.thumb.read_bytes()).decode()
        reason = f'<span class="file">{escape(part.location.not_found)}</span>' if part.location.not_found else ""
        mark = f"<span>{texts.MARKED.format(mark=part.mark)}</span>" if part.mark else ""
        figures.append(
            f'<figure><img src="data:image/jpeg;base64,{picture}" alt="{escape(part.name)}"><figcaption><span class="badge {decision}">'
            f"{texts.ICONS[decision]} {decision}</span> <b>{format_score(part.score, 3)}</b> {mark}{reason}"
            f'<span class="file">{escape(part.name)}</span></figcaption></figure>'
        )
    return "".join(figures)


def _csv_row(record: dict[str, Any]) -> dict[str, Any]:
    """A record without nested values. The columns `worst_…` are the box of the hottest region."""
    regions = record.get("regions") or []
    hottest = regions[0] if regions else {}
    width, height = record.get("image_size") or (None, None)
    thresholds = record.get("thresholds") or {}
    return {
        "image": record["image"],
        "decision": record["decision"],
        "score": record.get("score"),
        "reinspect_above": thresholds.get("reinspect"),
        "ng_above": thresholds.get("reject"),
        "person_says": record.get("person_says"),
        "regions": len(regions) if "score" in record else None,
        "worst_x": hottest.get("x"),
        "worst_y": hottest.get("y"),
        "worst_width": hottest.get("width"),
        "worst_height": hottest.get("height"),
        "width": width,
        "height": height,
        "sha256": record.get("sha256"),
        "error": record.get("error"),
        "cause": record.get("cause"),
        "explanation": record.get("explanation"),
    }
