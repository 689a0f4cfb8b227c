"""What lies on the desk as CSV, JSON or one self-contained HTML page; a file that could not be read is NG there too."""

from __future__ import annotations

import base64
import json
from html import escape
from importlib.resources import files
from typing import Any

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.desk import Desk
from inspect_kd.apps.studio.histogram import histogram, slider_range
from inspect_kd.apps.studio.what_if import held_out_scores
from inspect_kd.errors import UsageError
from inspect_kd.spreadsheet import csv_text
from inspect_kd.types import Decision

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
)


def export(desk: Desk, form: str) -> str:
    """The file's text."""
    makers = {"csv": as_csv, "json": as_json, "html": as_html}
    if form not in makers:
        raise UsageError(f"no export named '{form}'; there are: {', '.join(makers)}")
    return makers[form](desk)


def rows(desk: Desk) -> list[dict[str, Any]]:
    """One a part, the worst first, then what could not be read."""
    found = []
    for part in sorted(desk.all_parts(), key=lambda part: -part.score):
        answer = desk.inspection(part)
        found.append(answer.to_json() | {"person_says": str(part.mark) if part.mark else None, "sha256": part.sha256})
    refused = [{"image": each.name, "decision": str(Decision.NG), "error": each.reason} for each in desk.refused]
    return found + refused


def as_json(desk: Desk) -> str:
    inspector = desk.inspector
    content = {
        "artifact": {"name": desk.artifact, "sha256": inspector.digest, "recipe": inspector.card.recipe_digest},
        "category": desk.category,
        "what_if": desk.what_if().to_json(),
        "parts": rows(desk),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def as_csv(desk: Desk) -> str:
    return csv_text(COLUMNS, map(_flat, rows(desk)))


def as_html(desk: Desk) -> str:
    style = (files("inspect_kd.report") / "style.css").read_text(encoding="utf-8")
    limits = desk.thresholds
    counts = desk.what_if().shown
    tiles = "".join(
        f'<div class="tile"><b>{counts[decision]}</b><span>{texts.ICONS[decision]} {decision}</span></div>'
        for decision in reversed(Decision)
    )
    held_out = held_out_scores(desk.inspector.card.calibration, desk.category)
    chart = histogram([part.score for part in desk.all_parts()], held_out, limits, slider_range(desk.usual))
    legend = texts.HISTOGRAM.format(shown=len(desk.parts), sound=len(held_out))
    about = texts.AGAINST.format(reinspect=limits.reinspect, reject=limits.reject)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(desk.artifact)} · {texts.TITLE}</title><style>\n{style}{EXTRA}</style></head>\n<body>"
        f"<header><h1>{escape(desk.artifact)}</h1>"
        f'<p class="soft">{about} · sha256 {desk.inspector.digest[:16]}…</p></header>\n<main><div class="tiles">{tiles}</div>'
        f'<div class="card">{chart}<p class="soft">{legend}</p></div>{_refused(desk)}'
        f'<h2>{texts.FILES} ({len(desk.parts)})</h2><div class="gallery single">{_figures(desk)}</div></main></body></html>\n'
    )


def _refused(desk: Desk) -> str:
    if not desk.refused:
        return ""
    lines = "".join(f"<li><b>{escape(each.name)}</b> {escape(each.reason)}</li>" for each in desk.refused)
    count = len(desk.refused)
    return f"<h2>{texts.REFUSED_ONE if count == 1 else texts.REFUSED_MANY.format(count=count)}</h2><ul>{lines}</ul>"


EXTRA = """
.gallery.single { grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); } .gallery.single img { height: 180px; }
.histogram { width: 100%; max-width: 520px; display: block; }
.histogram text { fill: var(--soft); font-size: 9px; } .histogram .axis { stroke: var(--soft); }
.histogram .ok { fill: var(--ok); } .histogram .re { fill: var(--re); } .histogram .ng { fill: var(--ng); }
.histogram .cal { fill: var(--cal); } .histogram .band-re { fill: var(--re); opacity: .1; }
.histogram .band-ng { fill: var(--ng); opacity: .1; } .histogram line.limit { stroke: var(--ink); stroke-dasharray: 4 3; }
"""


def _figures(desk: Desk) -> str:
    figures = []
    for part in sorted(desk.all_parts(), key=lambda part: -part.score):
        decision = desk.thresholds.decide(part.score)
        picture = base64.b64encode(part.thumb.read_bytes()).decode()
        mark = f"<span>{texts.MARKED_DOUBT.format(mark=part.mark)}</span>" if part.mark else ""
        figures.append(
            f'<figure><img src="data:image/jpeg;base64,{picture}" alt="{escape(part.name)}"><figcaption><span class="badge {decision}">'
            f"{texts.ICONS[decision]} {decision}</span> <b>{part.score:.3f}</b> {mark}"
            f'<span class="file">{escape(part.name)}</span></figcaption></figure>'
        )
    return "".join(figures)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    regions = row.get("regions") or []
    worst = regions[0] if regions else {}
    width, height = row.get("image_size") or (None, None)
    limits = row.get("thresholds") or {}
    return {
        "image": row["image"],
        "decision": row["decision"],
        "score": row.get("score"),
        "reinspect_above": limits.get("reinspect"),
        "ng_above": limits.get("reject"),
        "person_says": row.get("person_says"),
        "regions": len(regions) if "score" in row else None,
        "worst_x": worst.get("x"),
        "worst_y": worst.get("y"),
        "worst_width": worst.get("width"),
        "worst_height": worst.get("height"),
        "width": width,
        "height": height,
        "sha256": row.get("sha256"),
        "error": row.get("error"),
    }
