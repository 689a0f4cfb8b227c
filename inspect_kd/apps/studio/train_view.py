"""The Train tab's pieces of HTML. Whatever comes from a file name, a log or a recipe is escaped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from inspect_kd.apps.studio.data_check import Check, Found
from inspect_kd.apps.studio.run_report import Picture, without_loading_tags
from inspect_kd.apps.studio.train_texts import Train
from inspect_kd.apps.studio.training_log import Figures, Points, thinned
from inspect_kd.apps.studio.training_record import BUSY, State
from inspect_kd.apps.studio.trainings import Training
from inspect_kd.report.charts import curve

MOST_FINDINGS = 30


def badge(state: State) -> str:
    """A mark and a word: no state is told by its colour alone."""
    mark, word = Train.STATES[state]
    return f'<span class="ikd-badge {state.name.lower()}"><span aria-hidden="true">{mark}</span> {word}</span>'


def status(training: Training | None, figures: Figures, complaint: str) -> str:
    """State, phases, progress and the figures of the moment."""
    if training is None:
        return f'<div class="ikd-train"><p class="soft">{Train.NOTHING_YET}</p></div>'
    without_artifact = training.state is State.FINISHED and not training.has_artifact
    text = Train.NO_ARTIFACT if without_artifact else Train.TOLD[training.state]
    told = text.format(place=training.place, folder=training.name, complaint=complaint)
    parts = [f'<div class="ikd-head">{badge(training.state)} <b class="name">{escape(training.name)}</b></div>']
    if told:
        parts.append(f'<p class="told {training.state.name.lower()}">{escape(told)}</p>')
    if training.state in BUSY or (training.state in (State.STOPPED, State.FAILED) and figures.phase):
        parts += [_phases(figures, training.state), _bar(figures), _tiles(figures, training.state)]
    return f'<div class="ikd-train">{"".join(parts)}</div>'


def _phases(figures: Figures, state: State) -> str:
    """What is over, what is going on, what is still to come."""
    over = [name for name, _ in figures.passed]
    now = figures.phase or Train.STARTING
    rest = [name for name in Train.LAST_PHASES if name not in (*over, now)] if state in BUSY else []
    chips = [f'<li class="over">✓ {_phase(name)}</li>' for name in over]
    chips.append(f'<li class="now" aria-current="step">{_phase(now)}</li>')
    return f'<ol class="ikd-phases">{"".join([*chips, *(f"<li>{_phase(name)}</li>" for name in rest)])}</ol>'


def _phase(name: str) -> str:
    return escape(Train.PHASES.get(name, name))


def _bar(figures: Figures) -> str:
    share = 100 * figures.done / figures.total if figures.total else 0
    return (
        f'<div class="ikd-bar" role="progressbar" aria-label="{_phase(figures.phase or Train.STARTING)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{share:.0f}"><span style="width:{min(100, share):.1f}%"></span></div>'
    )


def _tiles(figures: Figures, state: State) -> str:
    left = figures.seconds_left if state is State.RUNNING else None
    tiles = [
        (f"{figures.done:,} / {figures.total:,}" if figures.total else "–", Train.STEP),
        ("–" if left is None else span(left), Train.LEFT),
        ("–" if figures.loss is None else f"{figures.loss:.4f}", Train.LOSS),
        ("–" if figures.gap is None else f"{figures.gap:.3f}", Train.GAP),
    ]
    return (
        f'<dl class="ikd-tiles">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for value, name in tiles)}</dl>'
    )


def span(seconds: float) -> str:
    """A duration as a person says it."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )


def curves(losses: Mapping[str, Points], gaps: Points, *, running: bool) -> str:
    """Loss by phase, and the gap."""
    drawn = [curve(thinned(points), Train.CURVE_LOSS.format(phase=_phase(name))) for name, points in losses.items()]
    drawn.insert(1, curve(thinned(gaps), Train.CURVE_GAP))
    shown = "".join(drawn)
    if not shown:
        return f'<div class="ikd-train"><p class="soft">{Train.NO_CURVE}</p></div>' if running else ""
    return f'<div class="ikd-train ikd-curves">{shown}</div>'


def sound_parts(folder: str, pictures: Sequence[tuple[str, str]]) -> str:
    """Small pictures of parts that are fine."""
    if not pictures:
        return ""
    shown = "".join(
        f'<figure><img src="{escape(uri)}" alt="{escape(name)}"><figcaption>{escape(name)}</figcaption></figure>'
        for name, uri in pictures
    )
    heading = escape(Train.FIRST_PARTS.format(folder=folder))
    return f'<div class="ikd-train"><h3>{heading}</h3><div class="ikd-parts">{shown}</div></div>'


def inspected_parts(pictures: Sequence[Picture]) -> str:
    """The report's own pictures: a part, and its heat beside it."""
    if not pictures:
        return ""
    shown = "".join(
        f'<figure><div><img src="{escape(each.original)}" alt="{escape(each.caption)}">'
        f'<img src="{escape(each.heated)}" alt=""></div><figcaption>{escape(each.caption)}</figcaption></figure>'
        for each in pictures
    )
    return f'<div class="ikd-train"><h3>{Train.REPORT_PARTS}</h3><div class="ikd-parts wide">{shown}</div></div>'


def checked(check: Check | None) -> str:
    """What a folder holds and what is wrong with it."""
    if check is None:
        return f'<div class="ikd-train"><p class="soft">{Train.NOT_CHECKED}</p></div>'
    if not check.over:
        figures = Figures(phase="check", done=check.done, total=check.total)
        told = f"{Train.CHECKING} {check.done} / {check.total}" if check.total else Train.CHECKING
        return f'<div class="ikd-train"><p class="soft">{told}</p>{_bar(figures)}</div>'
    bad = [found for found in check.findings if found.severity != "note"]
    notes = [found for found in check.findings if found.severity == "note"]
    verdict = "" if bad else f'<p class="told finished">✓ {Train.NOTHING_WRONG}</p>'
    folded = (
        f"<details><summary>{Train.NOTES.format(count=len(notes))}</summary>{_findings(notes)}</details>"
        if notes
        else ""
    )
    return f'<div class="ikd-train">{verdict}{_held(check)}{_findings(bad)}{folded}</div>'


def _findings(findings: Sequence[Found]) -> str:
    hidden = len(findings) - MOST_FINDINGS
    more = f'<li class="note">{Train.MORE.format(count=hidden)}</li>' if hidden > 0 else ""
    return f'<ul class="ikd-findings">{"".join(map(_finding, findings[:MOST_FINDINGS]))}{more}</ul>' if findings else ""


def _finding(found: Found) -> str:
    mark, word = Train.SEVERITIES.get(found.severity, Train.SEVERITIES["note"])
    files = "".join(f"<br><code>{escape(file)}</code>" for file in found.files if file not in found.text)
    said = "" if found.severity == "note" else f"<b>{word}</b> "
    return (
        f'<li class="{escape(found.severity)}"><span class="mark" aria-hidden="true">{mark}</span>'
        f"<span>{said}{escape(found.text)}{files}</span></li>"
    )


def _held(check: Check) -> str:
    if not check.counts:
        return ""
    rows = [
        [category, *(str(splits.get(name, 0)) for name in Train.SPLITS), str(check.defective.get(category, 0))]
        for category, splits in check.counts.items()
    ]
    images = sum(sum(splits.values()) for splits in check.counts.values())
    line = escape(Train.LAYOUT.format(layout=check.layout, images=images))
    head = (Train.CATEGORY, *Train.SPLITS.values(), Train.DEFECTIVE)
    return f'<p class="soft">{line}</p>{_table(head, ([escape(cell) for cell in row] for row in rows), "numbers")}'


def runs(trainings: Sequence[Training]) -> str:
    """Every run, the latest first."""
    rows = (
        [
            f'<b class="name">{escape(each.name)}</b>',
            badge(each.state),
            escape(each.record.order.data) if each.record else "–",
            escape(each.record.order.recipe) if each.record else "–",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(each.since)),
        ]
        for each in trainings
    )
    return f'<div class="ikd-train">{_table(Train.HEAD, rows, "runs")}</div>' if trainings else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str) -> str:
    """Cells are already escaped by those who know what is in them."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def opening() -> str:
    return f'<div class="ikd-train"><p class="soft" role="status">{Train.OPENING}</p></div>'


def report(name: str, page: str) -> str:
    """The whole page in a frame that may run nothing and ask nobody."""
    return (
        f'<iframe class="ikd-report" sandbox="" referrerpolicy="no-referrer" title="{escape(name)}" '
        f'srcdoc="{escape(without_loading_tags(page), quote=True)}"></iframe>'
    )
