"""Two artifacts side by side on the same parts: how often they agree, and where they do not.

Each is held against its own limits: the calibrated scales are comparable, the raw distances would not be.
"""

from __future__ import annotations

from html import escape

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.desk import Desk
from inspect_kd.apps.studio.parts import Part
from inspect_kd.apps.studio.viewer import CLASSES, Address, stage, verdict
from inspect_kd.types import Decision, Inspection, Thresholds

MOST_CARDS = 120


def comparison(desk: Desk, address: Address) -> str:
    """Agreement as a table, then the parts on which they differ."""
    if not desk.second:
        hint = texts.COMPARE_EMPTY if desk.parts else texts.COMPARE_NO_PARTS
        if len(desk.shelf.names) < 2:
            hint = texts.COMPARE_ONE
        return f'<div class="empty"><span>{hint}</span></div>'
    theirs = desk.second_thresholds()
    pairs = compared(desk)
    same = sum(ours is other for _, ours, other in pairs)
    apart = sorted(
        (pair for pair in pairs if pair[1] is not pair[2]), key=lambda pair: -_distance(desk, pair[0], theirs)
    )
    cards = "".join(_card(desk, *pair, address) for pair in apart[:MOST_CARDS])
    below = (
        f'<h3>{texts.DIFFERENT}</h3><div class="cards">{cards}</div>'
        if apart
        else f'<p class="soft">{texts.NO_DIFFERENCE}</p>'
    )
    return f"<p><b>{texts.AGREE.format(same=same, total=len(pairs))}</b></p>{_matrix(desk, pairs)}{below}"


def compared(desk: Desk) -> list[tuple[Part, Decision, Decision]]:
    """Each part with both decisions."""
    theirs = desk.second_thresholds()
    return [
        (part, desk.thresholds.decide(part.score), theirs.decide(desk.second[part.number].score))
        for part in desk.all_parts()
        if part.number in desk.second
    ]


def side_by_side(desk: Desk, address: Address) -> str:
    """The chosen part, once by each."""
    part = desk.chosen()
    if part is None or part.number not in desk.second:
        return ""
    look = desk.second[part.number]
    other = desk.shelf.take(desk.second_artifact)
    limits = desk.second_thresholds()
    heatmap = look.heatmap()
    theirs = Inspection(
        score=look.score,
        decision=limits.decide(look.score),
        heatmap=heatmap,
        regions=other.regions(look.score, heatmap, limits, part.image_size),
        thresholds=limits,
        image_size=part.image_size,
    )
    halves = (
        (desk.artifact, desk.inspection(part), part.layer),
        (str(desk.second_artifact), theirs, look.layer),
    )
    drawn = "".join(
        f'<section><header><b>{escape(name)}</b>{verdict(answer.decision)}<span class="figure">{answer.score:.3f}</span></header>'
        f"{stage(part, answer, layer, address, wipe=False)}"
        f'<p class="soft">{texts.AGAINST.format(reinspect=answer.thresholds.reinspect, reject=answer.thresholds.reject)}</p></section>'
        for name, answer, layer in halves
    )
    return f'<h3>{escape(part.name)}</h3><div class="pair">{drawn}</div>'


def _matrix(desk: Desk, pairs: list[tuple[Part, Decision, Decision]]) -> str:
    order = list(reversed(Decision))
    head = "".join(f'<th scope="col">{verdict(decision)}</th>' for decision in order)
    rows = ""
    for ours in order:
        cells = ""
        for other in order:
            count = sum(pair[1] is ours and pair[2] is other for pair in pairs)
            cells += f'<td class="{"same" if ours is other else "apart" if count else ""}">{count}</td>'
        rows += f'<tr><th scope="row">{verdict(ours)}</th>{cells}</tr>'
    caption = f"{escape(desk.artifact)} ↓ · {escape(str(desk.second_artifact))} →"
    return f'<table class="matrix"><caption>{caption}</caption><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _card(desk: Desk, part: Part, ours: Decision, theirs: Decision, address: Address) -> str:
    chosen = str(part.number == desk.selected).lower()
    look = desk.second[part.number]
    return (
        f'<button type="button" class="card {CLASSES[ours]}" data-part="{part.number}" aria-pressed="{chosen}">'
        f'<img src="{address(part.thumb)}" alt="" loading="lazy">'
        f'<span class="row">{verdict(ours)}<b>{part.score:.2f}</b></span><span class="row">{verdict(theirs)}<b>{look.score:.2f}</b></span>'
        f'<span class="name">{escape(part.name)}</span></button>'
    )


def _distance(desk: Desk, part: Part, theirs: Thresholds) -> float:
    """Of two scores, each against its own NG limit."""
    ours, other = part.score / (desk.thresholds.reject or 1), desk.second[part.number].score / (theirs.reject or 1)
    return abs(ours - other)
