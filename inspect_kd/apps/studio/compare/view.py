"""Two artifacts side by side as HTML: how often they agree, and the parts on which they differ.

Each has its own thresholds: the calibrated scales are comparable, raw distances would not be.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.inspect.parts import Part
from inspect_kd.apps.studio.inspect.viewer import CSS_CLASSES, UrlOf, decision_label, picture_layers
from inspect_kd.apps.studio.session import Session
from inspect_kd.report.html import Cell, Html, table
from inspect_kd.types import Decision, Inspection

MAX_CARDS = 120


def comparison(session: Session, address: UrlOf) -> str:
    """Agreement as a table, then the parts on which the artifacts differ, the widest apart first."""
    if not session.comparison.predictions:
        hint = texts.COMPARE_EMPTY if session.parts else texts.COMPARE_NO_PARTS
        if len(session.library.names) < 2:
            hint = texts.COMPARE_ONE
        return f'<div class="empty"><span>{hint}</span></div>'
    decisions = session.comparison.decisions()
    differing = [each for each in decisions if each[1] is not each[2]]
    differing.sort(key=lambda each: -_distance(session, each[0]))
    cards = "".join(_card(session, *each, address) for each in differing[:MAX_CARDS])
    below = (
        f'<h3>{texts.DIFFERENT}</h3><div class="cards">{cards}</div>'
        if differing
        else f'<p class="soft">{texts.NO_DIFFERENCE}</p>'
    )
    agreement = texts.AGREE.format(same=len(decisions) - len(differing), total=len(decisions))
    return f"<p><b>{agreement}</b></p>{_matrix(session, decisions)}{below}"


def side_by_side(session: Session, address: UrlOf) -> str:
    """Show the selected part twice: with the first and with the second artifact's result."""
    part, compared = session.gallery.selected_part(), session.comparison
    if part is None or part.number not in compared.predictions:
        return ""
    halves = (
        (session.artifact, session.inspection(part), part.heat_layer),
        (str(compared.artifact), compared.inspection(part), compared.predictions[part.number].heat_layer),
    )
    sections = "".join(_half(part, *half, address) for half in halves)
    return f'<h3>{escape(part.name)}</h3><div class="pair">{sections}</div>'


def _half(part: Part, artifact: str, inspection: Inspection, layer: Path, address: UrlOf) -> str:
    thresholds = inspection.thresholds
    limits = texts.AGAINST.format(reinspect=thresholds.reinspect, reject=thresholds.reject)
    return (
        f"<section><header><b>{escape(artifact)}</b>{decision_label(inspection.decision)}"
        f'<span class="figure">{inspection.score:.3f}</span></header>'
        f'{picture_layers(part, inspection, layer, address, wipe=False)}<p class="soft">{limits}</p></section>'
    )


def _matrix(session: Session, decisions: list[tuple[Part, Decision, Decision]]) -> Html:
    order = list(reversed(Decision))

    def cell(first: Decision, second: Decision) -> Cell:
        count = sum(each[1] is first and each[2] is second for each in decisions)
        return Cell(count, "same" if first is second else "apart" if count else "")

    rows = ((decision_label(first), *(cell(first, second) for second in order)) for first in order)
    caption = f"{session.artifact} ↓ · {session.comparison.artifact} →"
    return table(("", *map(decision_label, order)), rows, classes="matrix", caption=caption, row_headers=True)


def _card(session: Session, part: Part, first: Decision, second: Decision, address: UrlOf) -> str:
    is_selected = str(part.number == session.gallery.selected).lower()
    score = session.comparison.predictions[part.number].score
    return (
        f'<button type="button" class="card {CSS_CLASSES[first]}" data-part="{part.number}" aria-pressed="{is_selected}">'
        f'<img src="{address(part.thumb)}" alt="" loading="lazy">'
        f'<span class="row">{decision_label(first)}<b>{part.score:.2f}</b></span>'
        f'<span class="row">{decision_label(second)}<b>{score:.2f}</b></span>'
        f'<span class="name">{escape(part.name)}</span></button>'
    )


def _distance(session: Session, part: Part) -> float:
    """The difference of both scores, each relative to its own NG threshold."""
    first = part.score / (session.thresholds.reject or 1)
    second = session.comparison.predictions[part.number].score / (session.comparison.thresholds().reject or 1)
    return abs(first - second)
