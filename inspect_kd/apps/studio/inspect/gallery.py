"""The gallery as HTML: inspected parts as cards with filters above them; also the panel of scores and decision counts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.inspect.gallery_state import FILTERS, ORDERS, PAGE_SIZE, GalleryState
from inspect_kd.apps.studio.inspect.histogram import histogram
from inspect_kd.apps.studio.inspect.parts import Part
from inspect_kd.apps.studio.inspect.viewer import CSS_CLASSES, UrlOf, decision_label
from inspect_kd.apps.studio.inspect.what_if import WhatIf, held_out_scores
from inspect_kd.apps.studio.session import RefusedFile, Session
from inspect_kd.report.html import Html, table
from inspect_kd.types import Decision, format_score, is_not_found

MAX_REFUSED_SHOWN = 20


def gallery(session: Session, address: UrlOf) -> str:
    """Refused files, filters with their counts, and the cards of the present page."""
    refused = _refused_files(session)
    if not session.parts:
        return refused + f'<div class="empty"><span>{texts.EMPTY_GALLERY}</span></div>'
    parts = session.gallery.page_parts()
    cards = "".join(_card(session, part, address) for part in parts)
    body = f'<div class="cards">{cards}</div>' if parts else f'<p class="soft">{texts.NO_PART_PASSES}</p>'
    return (
        f'{refused}<div class="chips">{_filter_buttons(session.gallery)}{_order_and_pages(session.gallery)}</div>{body}'
    )


def progress(done: int, total: int, seconds: float) -> str:
    """A progress bar with count and pace; empty if there is nothing to do."""
    if total == 0:
        return ""
    parts_per_second = done / seconds if seconds > 0 and done else 0.0
    label = texts.PROGRESS.format(done=done, total=total)
    text = label + (
        " · " + texts.PROGRESS_PACE.format(pace=parts_per_second, left=(total - done) / parts_per_second)
        if parts_per_second
        else ""
    )
    return (
        f'<div class="progress" role="progressbar" aria-valuemin="0" aria-valuemax="{total}" aria-valuenow="{done}" '
        f'aria-label="{label}">'
        f'<span style="width:{100 * done / total:.1f}%"></span></div><p class="soft">{text}</p>'
    )


def scores_panel(session: Session) -> str:
    """Histogram, counts of decisions, and the promise of the thresholds."""
    held_out = held_out_scores(session.inspector.card.calibration, session.category)
    scores = [part.score for part in session.all_parts()]
    chart = histogram(scores, held_out, session.thresholds, session.default_thresholds.highest_allowed)
    note = not_found_note(scores, held_out)
    return (
        f'{chart}{note}<p class="legend"><span><i class="sw ok"></i><i class="sw re"></i><i class="sw ng"></i>{texts.LEGEND_SHOWN}</span>'
        f'<span><i class="sw cal"></i>{texts.LEGEND_SOUND}</span></p>{_what_if_table(session.what_if(), len(held_out))}'
    )


def not_found_note(scores: Sequence[float], held_out: Sequence[float]) -> str:
    """How many parts were not found, and are therefore missing in the histogram; empty if there are none."""
    shown, sound = (sum(map(is_not_found, values)) for values in (scores, held_out))
    return f'<p class="soft">{texts.NOT_FOUND_NOTE.format(shown=shown, sound=sound)}</p>' if shown or sound else ""


def _what_if_table(what_if: WhatIf, held_out_count: int) -> str:
    order = list(reversed(Decision))
    inspected = (
        Html(
            f"<b>{what_if.inspected[decision]}</b>{_difference_label(what_if.inspected[decision] - what_if.inspected_by_default[decision])}"
        )
        for decision in order
    )
    rows = (
        (f"{texts.INSPECTED} ({sum(what_if.inspected.values())})", *inspected),
        (f"{texts.HELD_OUT} ({held_out_count})", *(what_if.held_out[decision] for decision in order)),
    )
    promise = texts.PROMISE.format(
        reject=f"{100 * what_if.reject_promise:.1f} %", stopped=f"{100 * what_if.reinspect_promise:.1f} %"
    )
    header = ("", *map(decision_label, order))
    return (
        f"{table(header, rows, classes='would', caption=texts.DECISION_COUNTS, row_headers=True)}"
        f'<p class="promise">{promise if held_out_count else texts.PROMISE_NONE}</p>'
    )


def _difference_label(difference: int) -> str:
    """The difference from the count under the artifact's own thresholds."""
    return f' <small class="change">{difference:+d}</small>' if difference else ""


def _filter_buttons(state: GalleryState) -> str:
    counts = state.counts()
    return "".join(
        f'<button type="button" class="chip" data-filter="{name}" aria-pressed="{str(state.filter == name).lower()}">'
        f"{texts.FILTER_NAMES[name]} <b>{counts[name]}</b></button>"
        for name in FILTERS
        if counts[name] or name not in ("marked", "wrong")
    )


def _order_and_pages(state: GalleryState) -> str:
    options = "".join(
        f'<option value="{order}"{" selected" if state.order == order else ""}>{texts.ORDER_NAMES[order]}</option>'
        for order in ORDERS
    )
    pages = max(1, -(-len(state.filtered_parts()) // PAGE_SIZE))
    pager = ""
    if pages > 1:
        page = texts.PAGE_OF.format(page=state.page + 1, pages=pages)
        pager = f'<span class="pager">{_page_button(-1, state.page == 0)}{page}{_page_button(1, state.page == pages - 1)}</span>'
    return f'<div class="order"><select data-order aria-label="{texts.ORDER}">{options}</select>{pager}</div>'


def _page_button(by: int, is_disabled: bool) -> str:
    name, sign = (texts.NEXT, "›") if by > 0 else (texts.PREVIOUS, "‹")
    return f'<button type="button" data-turn="{by}" aria-label="{name}"{" disabled" if is_disabled else ""}>{sign}</button>'


def _card(session: Session, part: Part, address: UrlOf) -> str:
    decision = session.thresholds.decide(part.score)
    is_selected = str(part.number == session.gallery.selected).lower()
    reason = f' title="{escape(part.location.not_found)}"' if part.location.not_found else ""
    mark = ""
    if part.mark is not None:
        kind = "wrong" if part.is_wrong_call(session.thresholds) else "right"
        mark = f'<span class="flag {kind}">{texts.ICONS[part.mark]} {part.mark}</span>'
    return (
        f'<button type="button" class="card {CSS_CLASSES[decision]}" data-part="{part.number}" aria-pressed="{is_selected}"{reason}>'
        f'<img src="{address(part.thumb)}" alt="" loading="lazy">{mark}'
        f'<span class="row">{decision_label(decision)}<b>{format_score(part.score)}</b></span>'
        f'<span class="name">{escape(part.name)}</span></button>'
    )


def _refused_files(session: Session) -> str:
    if not session.refused_files:
        return ""
    shown = session.refused_files[-MAX_REFUSED_SHOWN:]
    return (
        f'<div class="refused" role="alert"><b>{texts.ICONS[Decision.NG]} {refused_heading(session.refused_count)}</b>'
        f"{refused_list(shown, session.refused_count)}</div>"
    )


def refused_heading(count: int) -> str:
    """How many files were refused."""
    return texts.REFUSED_ONE if count == 1 else texts.REFUSED_MANY.format(count=count)


def refused_list(files: Sequence[RefusedFile], count: int) -> str:
    """Some of the `count` refused files as a list, with the number of the others."""
    lines = [f"<li><b>{escape(file.name)}</b> {escape(file.reason)}</li>" for file in files]
    if count > len(files):
        lines.append(f"<li>{texts.REFUSED_MORE.format(count=count - len(files))}</li>")
    return f"<ul>{''.join(lines)}</ul>"
