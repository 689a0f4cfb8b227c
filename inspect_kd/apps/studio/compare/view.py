"""Two artifacts side by side as HTML: how often they agree, and the parts on which they differ.

Each artifact has its own thresholds. Scores are calibrated, and therefore comparable; raw feature distances would not be.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.inspect.parts import Part
from inspect_kd.apps.studio.inspect.viewer import CSS_CLASSES, UrlOf, decision_label, picture_layers, reason_line
from inspect_kd.apps.studio.session import Session
from inspect_kd.report.html import Cell, Html, table
from inspect_kd.types import Decision, Inspection, format_score

MAX_CARDS = 120


def decisions_of_both(session: Session, address: UrlOf) -> str:
    """A table that counts the decisions of both artifacts, then cards of the parts on which they differ, the largest difference first."""
    if not session.comparison.predictions:
        hint = texts.COMPARE_EMPTY if session.parts else texts.COMPARE_NO_PARTS
        if len(session.library.names) < 2:
            hint = texts.COMPARE_ONE
        return f'<div class="empty"><span>{hint}</span></div>'
    decisions = session.comparison.decisions()
    differing = [(part, first, second) for part, first, second in decisions if first is not second]
    differing.sort(key=lambda row: -_score_difference(session, row[0]))
    cards = "".join(_card(session, *row, address) for row in differing[:MAX_CARDS])
    differences = (
        f'<h3>{texts.DIFFERENT}</h3><div class="cards">{cards}</div>'
        if differing
        else f'<p class="soft">{texts.NO_DIFFERENCE}</p>'
    )
    agreement = texts.AGREE.format(same=len(decisions) - len(differing), total=len(decisions))
    return f"<p><b>{agreement}</b></p>{_matrix(session, decisions)}{differences}"


def side_by_side(session: Session, address: UrlOf) -> str:
    """Show the selected part twice: with the first and with the second artifact's result."""
    part, comparison = session.gallery.selected_part(), session.comparison
    if part is None or part.number not in comparison.predictions:
        return ""
    halves = (
        (session.artifact, session.inspection(part), part.heat_layer),
        (str(comparison.artifact), comparison.inspection(part), comparison.predictions[part.number].heat_layer),
    )
    sections = "".join(_half(part, *half, address) for half in halves)
    return f'<h3>{escape(part.name)}</h3><div class="pair">{sections}</div>'


def _half(part: Part, artifact: str, inspection: Inspection, heat_layer: Path, address: UrlOf) -> str:
    """The part with one artifact's decision, score and thresholds."""
    thresholds = inspection.thresholds
    thresholds_text = texts.BOTH_THRESHOLDS.format(reinspect=thresholds.reinspect, reject=thresholds.reject)
    return (
        f"<section><header><b>{escape(artifact)}</b>{decision_label(inspection.decision)}"
        f'<span class="figure">{format_score(inspection.score, 3)}</span></header>'
        f"{picture_layers(part, inspection, heat_layer, address, wipe=False)}{reason_line(inspection)}"
        f'<p class="soft">{thresholds_text}</p></section>'
    )


def _matrix(session: Session, decisions: list[tuple[Part, Decision, Decision]]) -> Html:
    """A table of counts: a row for each decision of the first artifact, a column for each of the second."""
    order = list(reversed(Decision))

    def cell(first: Decision, second: Decision) -> Cell:
        count = sum((row[1], row[2]) == (first, second) for row in decisions)
        return Cell(count, "same" if first is second else "apart" if count else "")

    rows = ((decision_label(first), *(cell(first, second) for second in order)) for first in order)
    caption = f"{session.artifact} ↓ · {session.comparison.artifact} →"
    return table(("", *map(decision_label, order)), rows, classes="matrix", caption=caption, row_headers=True)


def _card(session: Session, part: Part, first: Decision, second: Decision, address: UrlOf) -> str:
    is_selected = str(part.number == session.gallery.selected).lower()
    second_score = session.comparison.predictions[part.number].score
    return (
        f'<button type="button" class="card {CSS_CLASSES[first]}" data-part="{part.number}" aria-pressed="{is_selected}">'
        f'<img src="{address(part.thumb)}" alt="" loading="lazy">'
        f'<span class="row">{decision_label(first)}<b>{format_score(part.score)}</b></span>'
        f'<span class="row">{decision_label(second)}<b>{format_score(second_score)}</b></span>'
        f'<span class="name">{escape(part.name)}</span></button>'
    )


def _score_difference(session: Session, part: Part) -> float:
    """The difference of both scores, each divided by its artifact's NG threshold."""
    first = part.score / (session.thresholds.reject or 1)
    second = session.comparison.predictions[part.number].score / (session.comparison.thresholds().reject or 1)
    return abs(first - second)
