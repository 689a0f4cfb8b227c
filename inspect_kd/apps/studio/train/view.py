"""HTML of the Train tab. All text from file names, logs and recipes is escaped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from inspect_kd.apps.studio.texts import ICONS
from inspect_kd.apps.studio.train import texts
from inspect_kd.apps.studio.train.data_check import DataCheck, DataFinding
from inspect_kd.apps.studio.train.log import CommandProgress, Points, thin_out
from inspect_kd.apps.studio.train.record import BUSY, State
from inspect_kd.apps.studio.train.run_report import without_loading_tags
from inspect_kd.apps.studio.train.trainings import Training
from inspect_kd.errors import printable
from inspect_kd.report.charts import draw_curve
from inspect_kd.report.html import Html, table
from inspect_kd.report.pictures import Example
from inspect_kd.types import format_score

MAX_FINDINGS = 30


def badge(state: State) -> Html:
    """A state as mark and word, readable without colour."""
    mark, word = texts.STATES[state]
    return Html(f'<span class="ikd-badge {state.name.lower()}"><span aria-hidden="true">{mark}</span> {word}</span>')


def status(training: Training | None, progress: CommandProgress, error: str) -> str:
    """The state of the chosen run, with its phases, progress and present metrics."""
    if training is None:
        return f'<div class="ikd-train"><p class="soft">{texts.NOTHING_YET}</p></div>'
    without_artifact = training.state is State.FINISHED and not training.has_artifact
    text = texts.NO_ARTIFACT if without_artifact else texts.EXPLANATIONS[training.state]
    explanation = text.format(place=training.queue_position, folder=training.name, error=error)
    sections = [f'<div class="ikd-head">{badge(training.state)} <b class="name">{escape(training.name)}</b></div>']
    if explanation:
        sections.append(f'<p class="explanation {training.state.name.lower()}">{escape(explanation)}</p>')
    if training.state in BUSY or (training.state in (State.STOPPED, State.FAILED) and progress.phase):
        sections += [_phases(progress, training.state), _progress_bar(progress), _key_figures(progress, training.state)]
    return f'<div class="ikd-train">{"".join(sections)}</div>'


def _phases(progress: CommandProgress, state: State) -> str:
    """The finished phases, the present one, and the coming ones."""
    finished = [name for name, _ in progress.finished_phases]
    present = progress.phase or texts.STARTING
    coming = [name for name in texts.LAST_PHASES if name not in (*finished, present)] if state in BUSY else []
    chips = [f'<li class="over">✓ {_phase_label(name)}</li>' for name in finished]
    chips.append(f'<li class="now" aria-current="step">{_phase_label(present)}</li>')
    return f'<ol class="ikd-phases">{"".join([*chips, *(f"<li>{_phase_label(name)}</li>" for name in coming)])}</ol>'


def _phase_label(name: str) -> str:
    return escape(texts.PHASES.get(name, name))


def _progress_bar(progress: CommandProgress) -> str:
    share = 100 * progress.done / progress.total if progress.total else 0
    return (
        f'<div class="ikd-bar" role="progressbar" aria-label="{_phase_label(progress.phase or texts.STARTING)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{share:.0f}"><span style="width:{min(100, share):.1f}%"></span></div>'
    )


def _key_figures(progress: CommandProgress, state: State) -> str:
    left = progress.seconds_left if state is State.RUNNING else None
    figures = [
        (f"{progress.done:,} / {progress.total:,}" if progress.total else "–", texts.STEP),
        ("–" if left is None else duration(left), texts.LEFT),
        ("–" if progress.loss is None else f"{progress.loss:.4f}", texts.LOSS),
        ("–" if progress.gap is None else f"{progress.gap:.3f}", texts.SYNTHETIC_AP),
    ]
    return f'<dl class="ikd-tiles">{"".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for value, name in figures)}</dl>'


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours, for people."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )


def curves(losses: Mapping[str, Points], gaps: Points, *, running: bool) -> str:
    """Curves of the loss by phase, and of the synthetic gap."""
    charts = [
        draw_curve(thin_out(points), texts.CURVE_LOSS.format(phase=_phase_label(name)))
        for name, points in losses.items()
    ]
    charts.insert(1, draw_curve(thin_out(gaps), texts.CURVE_AP))
    if not any(charts):
        return f'<div class="ikd-train"><p class="soft">{texts.NO_CURVE}</p></div>' if running else ""
    return f'<div class="ikd-train ikd-curves">{"".join(charts)}</div>'


def sound_parts(folder: str, pictures: Sequence[tuple[str, str]]) -> str:
    """Small pictures of the first sound parts."""
    if not pictures:
        return ""
    figures = "".join(
        f'<figure><img src="{escape(uri)}" alt="{escape(name)}"><figcaption>{escape(name)}</figcaption></figure>'
        for name, uri in pictures
    )
    heading = escape(texts.FIRST_PARTS.format(folder=folder))
    return f'<div class="ikd-train"><h3>{heading}</h3><div class="ikd-parts">{figures}</div></div>'


def report_pictures(examples: Sequence[Example]) -> str:
    """The report's own pictures: a part, and its heatmap beside it."""
    if not examples:
        return ""
    figures = "".join(map(_report_picture, examples))
    return f'<div class="ikd-train"><h3>{texts.REPORT_PARTS}</h3><div class="ikd-parts wide">{figures}</div></div>'


def _report_picture(example: Example) -> str:
    decision = f"{ICONS[example.decision]} {example.decision}"
    reason = (example.explanation,) if example.explanation else ()
    words = (decision, format_score(example.score), *reason, f"{example.category}, {example.kind}", example.name)
    caption = escape(printable(" · ".join(words)))
    return (
        f'<figure><div><img src="{escape(example.image_uri)}" alt="{caption}">'
        f'<img src="{escape(example.heatmap_uri)}" alt=""></div><figcaption>{caption}</figcaption></figure>'
    )


def check_result(check: DataCheck | None) -> str:
    """What a folder contains and what is wrong with it, or the progress of the check."""
    if check is None:
        return f'<div class="ikd-train"><p class="soft">{texts.NOT_CHECKED}</p></div>'
    if not check.over:
        bar = _progress_bar(CommandProgress(phase="check", done=check.done, total=check.total))
        text = f"{texts.CHECKING} {check.done} / {check.total}" if check.total else texts.CHECKING
        return f'<div class="ikd-train"><p class="soft">{text}</p>{bar}</div>'
    problems = [finding for finding in check.findings if finding.severity != "note"]
    notes = [finding for finding in check.findings if finding.severity == "note"]
    nothing_wrong = all(finding.severity in ("advice", "note") for finding in check.findings)
    all_well = "" if not nothing_wrong else f'<p class="explanation finished">✓ {texts.NOTHING_WRONG}</p>'
    notes_html = (
        f"<details><summary>{texts.NOTES.format(count=len(notes))}</summary>{_findings(notes)}</details>"
        if notes
        else ""
    )
    return f'<div class="ikd-train">{all_well}{_counts(check)}{_findings(problems)}{notes_html}</div>'


def _findings(findings: Sequence[DataFinding]) -> str:
    hidden_count = len(findings) - MAX_FINDINGS
    more = f'<li class="note">{texts.MORE.format(count=hidden_count)}</li>' if hidden_count > 0 else ""
    return f'<ul class="ikd-findings">{"".join(map(_finding, findings[:MAX_FINDINGS]))}{more}</ul>' if findings else ""


def _finding(finding: DataFinding) -> str:
    mark, word = texts.SEVERITIES.get(finding.severity, texts.SEVERITIES["note"])
    files = "".join(f"<br><code>{escape(file)}</code>" for file in finding.files if file not in finding.text)
    label = "" if finding.severity == "note" else f"<b>{word}</b> "
    return (
        f'<li class="{escape(finding.severity)}"><span class="mark" aria-hidden="true">{mark}</span>'
        f"<span>{label}{escape(finding.text)}{files}</span></li>"
    )


def _counts(check: DataCheck) -> str:
    if not check.counts:
        return ""
    rows = (
        [category, *(splits.get(name, 0) for name in texts.SPLITS), check.defective.get(category, 0)]
        for category, splits in check.counts.items()
    )
    images = sum(sum(splits.values()) for splits in check.counts.values())
    line = escape(texts.LAYOUT.format(layout=check.layout, images=images))
    head = (texts.CATEGORY, *texts.SPLITS.values(), texts.DEFECTIVE)
    return f'<p class="soft">{line}</p>{_scrolling_table(head, rows, "numbers")}'


def runs(trainings: Sequence[Training]) -> str:
    """All runs, the latest first."""
    if not trainings:
        return ""
    rows = (
        [
            Html(f'<b class="name">{escape(each.name)}</b>'),
            badge(each.state),
            each.record.request.data if each.record else "–",
            each.record.request.recipe if each.record else "–",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(each.began_at)),
        ]
        for each in trainings
    )
    return f'<div class="ikd-train">{_scrolling_table(texts.RUN_COLUMNS, rows, "runs")}</div>'


def _scrolling_table(head: Iterable[str], rows: Iterable[Iterable[object]], classes: str) -> str:
    return f'<div class="scroll" tabindex="0">{table(head, rows, classes=classes)}</div>'


def opening() -> str:
    """A message while a report is loaded."""
    return f'<div class="ikd-train"><p class="soft" role="status">{texts.OPENING}</p></div>'


def report(name: str, page: str) -> str:
    """The page of a report in a frame that runs no script and sends no request."""
    return (
        f'<iframe class="ikd-report" sandbox="" referrerpolicy="no-referrer" title="{escape(name)}" '
        f'srcdoc="{escape(without_loading_tags(page), quote=True)}"></iframe>'
    )
