"""The parts on the desk as cards, the filters above them, and what a threshold would do, in figures. All HTML."""

from __future__ import annotations

from html import escape

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.desk import FILTERS, ORDERS, PAGE, Desk
from inspect_kd.apps.studio.histogram import histogram, slider_range
from inspect_kd.apps.studio.parts import Part
from inspect_kd.apps.studio.viewer import CLASSES, Address, verdict
from inspect_kd.apps.studio.what_if import WhatIf, held_out_scores
from inspect_kd.types import Decision

MOST_REFUSALS = 20


def gallery(desk: Desk, address: Address) -> str:
    """Filters with their counts, cards, pages."""
    refusals = _refusals(desk)
    if not desk.parts:
        return refusals + f'<div class="empty"><span>{texts.EMPTY_GALLERY}</span></div>'
    parts = desk.on_page()
    cards = "".join(_card(desk, part, address) for part in parts)
    body = f'<div class="cards">{cards}</div>' if parts else f'<p class="soft">{texts.NOTHING_PASSES}</p>'
    return f'{refusals}<div class="chips">{_filters(desk)}{_orders(desk)}</div>{body}'


def progress(done: int, total: int, seconds: float) -> str:
    """A bar with words beside it; nothing when nothing runs."""
    if total == 0:
        return ""
    pace = done / seconds if seconds > 0 and done else 0.0
    words = texts.PROGRESS.format(done=done, total=total)
    if pace:
        words += " · " + texts.PROGRESS_PACE.format(pace=pace, left=(total - done) / pace)
    return (
        f'<div class="progress" role="progressbar" aria-valuemin="0" aria-valuemax="{total}" aria-valuenow="{done}" '
        f'aria-label="{texts.PROGRESS.format(done=done, total=total)}">'
        f'<span style="width:{100 * done / total:.1f}%"></span></div><p class="soft">{words}</p>'
    )


def scores_panel(desk: Desk) -> str:
    """Histogram, what would be rejected, and what that promises."""
    held_out = held_out_scores(desk.inspector.card.calibration, desk.category)
    chart = histogram([part.score for part in desk.all_parts()], held_out, desk.thresholds, slider_range(desk.usual))
    return (
        f'{chart}<p class="legend"><span><i class="sw ok"></i><i class="sw re"></i><i class="sw ng"></i>{texts.LEGEND_SHOWN}</span>'
        f'<span><i class="sw cal"></i>{texts.LEGEND_SOUND}</span></p>{_would_be(desk.what_if(), len(held_out))}'
    )


def _would_be(answer: WhatIf, n: int) -> str:
    head = "".join(f'<th scope="col">{verdict(decision)}</th>' for decision in reversed(Decision))
    shown = "".join(
        f"<td><b>{answer.shown[decision]}</b>{_change(answer.shown[decision] - answer.usual[decision])}</td>"
        for decision in reversed(Decision)
    )
    sound = "".join(f"<td>{answer.sound[decision]}</td>" for decision in reversed(Decision))
    promise = texts.PROMISE.format(
        reject=f"{100 * answer.reject_promise:.1f} %", stopped=f"{100 * answer.reinspect_promise:.1f} %"
    )
    return (
        f'<table class="would"><caption>{texts.WOULD_BE}</caption><thead><tr><td></td>{head}</tr></thead><tbody>'
        f'<tr><th scope="row">{texts.ON_THE_DESK} ({sum(answer.shown.values())})</th>{shown}</tr>'
        f'<tr><th scope="row">{texts.HELD_OUT} ({n})</th>{sound}</tr></tbody></table>'
        f'<p class="promise">{promise if n else texts.PROMISE_NONE}</p>'
    )


def _change(by: int) -> str:
    """Against the artifact's own limits."""
    return f' <small class="change">{by:+d}</small>' if by else ""


def _filters(desk: Desk) -> str:
    counts = desk.counts()
    return "".join(
        f'<button type="button" class="chip" data-filter="{name}" aria-pressed="{str(desk.filter == name).lower()}">'
        f"{texts.FILTER_NAMES[name]} <b>{counts[name]}</b></button>"
        for name in FILTERS
        if counts[name] or name not in ("marked", "wrong")
    )


def _orders(desk: Desk) -> str:
    options = "".join(
        f'<option value="{order}"{" selected" if desk.order == order else ""}>{texts.ORDER_NAMES[order]}</option>'
        for order in ORDERS
    )
    pages = max(1, -(-len(desk.in_sight()) // PAGE))
    pager = ""
    if pages > 1:
        place = texts.PAGE_OF.format(page=desk.page + 1, pages=pages)
        pager = f'<span class="pager">{_turn(-1, desk.page == 0)}{place}{_turn(1, desk.page == pages - 1)}</span>'
    return f'<div class="order"><select data-order aria-label="{texts.ORDER}">{options}</select>{pager}</div>'


def _turn(by: int, last: bool) -> str:
    name, sign = (texts.NEXT, "›") if by > 0 else (texts.PREVIOUS, "‹")
    return f'<button type="button" data-turn="{by}" aria-label="{name}"{" disabled" if last else ""}>{sign}</button>'


def _card(desk: Desk, part: Part, address: Address) -> str:
    decision = desk.thresholds.decide(part.score)
    chosen = str(part.number == desk.selected).lower()
    mark = ""
    if part.mark is not None:
        kind = "wrong" if part.wrong(desk.thresholds) else "right"
        mark = f'<span class="flag {kind}">{texts.ICONS[part.mark]} {part.mark}</span>'
    return (
        f'<button type="button" class="card {CLASSES[decision]}" data-part="{part.number}" aria-pressed="{chosen}">'
        f'<img src="{address(part.thumb)}" alt="" loading="lazy">{mark}<span class="row">{verdict(decision)}<b>{part.score:.2f}</b></span>'
        f'<span class="name">{escape(part.name)}</span></button>'
    )


def _refusals(desk: Desk) -> str:
    if not desk.refused:
        return ""
    count = len(desk.refused)
    head = texts.REFUSED_ONE if count == 1 else texts.REFUSED_MANY.format(count=count)
    lines = "".join(
        f"<li><b>{escape(each.name)}</b> {escape(each.reason)}</li>" for each in desk.refused[-MOST_REFUSALS:]
    )
    return f'<div class="refused" role="alert"><b>{texts.ICONS[Decision.NG]} {head}</b><ul>{lines}</ul></div>'
