"""Render the report's page, section by section; a section is empty if it has nothing to show.

All text from file names and recipes is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from inspect_kd.calibrate import POOLED
from inspect_kd.datasets.advice import Advice
from inspect_kd.errors import printable
from inspect_kd.evaluate import Evaluation
from inspect_kd.metrics import METRICS
from inspect_kd.report import Report
from inspect_kd.report.charts import draw_curve, draw_histogram
from inspect_kd.report.html import card_table, document, figure_boxes, with_not_found
from inspect_kd.report.pictures import Example, data_uri
from inspect_kd.report.presented_parts import presentation_section
from inspect_kd.types import NOT_FOUND, format_score, is_not_found

METRIC_NAMES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1max": "image F1max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1max": "pixel F1max",
    "pixel_aupro": "AUPRO",
}
MAX_HISTOGRAMS = 16


def render_page(report: Report) -> str:
    """Return the report as an HTML document."""
    sections = [
        _refused(report),
        _key_figures(report),
        _examples(report),
        _presentation(report),
        _promise(report),
        _scores(report),
        _metrics(report),
        _decisions(report),
        _data(report),
        _advice(report),
        _use(report),
        _training(report),
        _environment(report),
    ]
    version, finished = report.environment.get("inspect_kd", ""), report.facts.get("finished", "")
    body = "\n".join(section for section in sections if section)
    return document(
        title=f"{report.title} · inspect-kd",
        heading=report.title,
        subtitle=f'<p class="soft">{_subtitle(report)}</p>',
        body=f"\n{body}\n<footer>inspect-kd {escape(str(version))} · {escape(str(finished))}</footer>",
    )


def _subtitle(report: Report) -> str:
    categories = len(report.data["counts"])
    contents = f"{categories} {'category' if categories == 1 else 'categories'}, one model"
    seconds = report.facts.get("train_seconds")
    duration = (
        f", trained in {seconds / 60:.1f} min on {escape(str(report.environment.get('device', '?')))}"
        if seconds
        else ""
    )
    return f"Data set {escape(str(report.data['name']))}: {contents}{duration}."


def _refused(report: Report) -> str:
    """List the artifacts that failed verification, with the command that tries again; empty if there are none."""
    refused = report.facts.get("refused", {})
    lines = "".join(f"<li>{escape(complaint)}</li>" for complaint in refused.values())
    command = f"inspect-kd export {report.title} --to {','.join(refused)}"
    return (
        f'<p><span class="badge NG">NO ARTIFACT</span> The training is complete, but when this page was written the export had '
        f"failed verification:</p><ul>{lines}</ul><p>To try again: <code>{escape(command)}</code></p>"
        if refused
        else ""
    )


def _key_figures(report: Report) -> str:
    figures: list[tuple[str, str]] = []
    if report.evaluation:
        mean = report.evaluation.measures["mean"]
        for name in ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro"):
            value = mean[name].value
            figures.append(("–" if value is None else f"{value:.3f}", METRIC_NAMES[name]))
    pooled = report.calibration.limits[POOLED]
    figures.append((f"≤ {100 * pooled.reject_promise:.1f} %", f"false NG promised ({pooled.n} sound parts)"))
    parity = next(iter(report.facts.get("parity", {}).values()), None)
    if parity:
        figures.append((str(parity["flips"]), f"decisions flipped by the export ({parity['real_images']} images)"))
    return figure_boxes(figures)


def _examples(report: Report) -> str:
    if not report.examples:
        return ""
    sections = [
        "<h2>Parts worth a look</h2>",
        '<p class="soft">Left: the part, with the outline of the defect where the data set has one. Right: its heatmap; '
        "colour starts at half the threshold, and where parts are aligned a blue line is the inspected frame.</p>",
    ]
    for heading, examples in report.examples.items():
        sections.append(
            f'<h3>{escape(heading)}</h3><div class="gallery">{"".join(_example_figure(e) for e in examples)}</div>'
        )
    return "".join(sections)


def _example_figure(example: Example) -> str:
    description = f"{example.category}, {example.kind}"
    score = format_score(example.score)
    words = f"heatmap, {score if is_not_found(example.score) else f'score {score}'}"
    reason = f'<span class="file">{escape(example.explanation)}</span>' if example.explanation else ""
    return (
        f'<figure><div><img src="{example.image_uri}" alt="{escape(description)}: the part" loading="lazy">'
        f'<img src="{example.heatmap_uri}" alt="{escape(description)}: {words}" loading="lazy"></div>'
        f"<figcaption>{_badge(str(example.decision))} <b>{score}</b> <span>{escape(description)}</span>{reason}"
        f'<span class="file">{escape(example.name)}</span></figcaption></figure>'
    )


def _badge(decision: str) -> str:
    mark = {"OK": "✓ OK", "RE-INSPECT": "? RE-INSPECT", "NG": "✕ NG"}[decision]
    return f'<span class="badge {decision}">{mark}</span>'


def _presentation(report: Report) -> str:
    not_found = report.evaluation.not_found() if report.evaluation else {}
    return presentation_section(report.facts.get("presentations", {}), not_found, report.presented)


def _promise(report: Report) -> str:
    rows = []
    for name, limits in report.calibration.limits.items():
        label = "all together" if name == POOLED else name
        low, high = limits.thresholds.reinspect, limits.thresholds.reject
        rows.append(
            [
                label,
                with_not_found(limits.n, report.calibration.count_not_found(name)),
                f"{low:.3f}",
                f"{high:.3f}",
                f"≤ {100 * limits.reinspect_promise:.1f} %",
                f"≤ {100 * limits.reject_promise:.1f} %",
            ]
        )
    head = [
        "category",
        "held-out sound parts",
        "RE-INSPECT above",
        "NG above",
        "sound parts NG or RE-INSPECT",
        "sound parts NG",
    ]
    sentence = escape(report.calibration.describe())
    return (
        f"<h2>What the thresholds promise</h2><p>{sentence}</p>"
        '<p class="soft">Split-conformal: the promise holds for any distribution of scores, as long as new parts come from the same '
        "line, camera and light as the held-out ones. Scores are on a scale where 1 is the NG threshold over all categories.</p>"
        f"{card_table(head, rows)}"
    )


def _scores(report: Report) -> str:
    names = [name for name in report.calibration.limits if name != POOLED][:MAX_HISTOGRAMS]
    verdicts = report.evaluation.verdicts if report.evaluation else []
    charts = []
    for name in names:
        sound = [v.score for v in verdicts if v.sample.category == name and not v.defective]
        defective = [v.score for v in verdicts if v.sample.category == name and v.defective]
        chart = draw_histogram(
            report.calibration.scores.get(name, ()), sound, defective, report.calibration.limits[name].thresholds
        )
        charts.append(f'<h3>{escape(name)}</h3><div class="card">{chart}</div>')
    legend = (
        '<p class="legend"><span><i style="background:var(--cal)"></i>calibration (sound, held out)</span>'
        '<span><i style="background:var(--ok)"></i>test, sound</span>'
        '<span><i style="background:var(--ng)"></i>test, defective (below the axis)</span></p>'
    )
    return f"<h2>Scores</h2>{legend}{''.join(charts)}"


def _metrics(report: Report) -> str:
    if report.evaluation is None:
        return "<h2>Metrics</h2><p>The data set has no test split, so nothing was measured.</p>"
    rows, reasons = [], set()
    for category, measures in report.evaluation.measures.items():
        row = [category]
        for name in METRICS:
            value, reason = measures[name].value, measures[name].reason
            row.append("–" if value is None else f"{value:.4f}")
            if reason:
                reasons.add(f"{category}: {reason}")
        rows.append(row)
    notes = "".join(f'<p class="soft">– {escape(reason)}</p>' for reason in sorted(reasons))
    return f"<h2>Metrics</h2>{card_table(['category', *METRIC_NAMES.values()], rows, last_row='mean')}{notes}{_zones(report.evaluation)}"


def _zones(evaluation: Evaluation) -> str:
    """Return the note that zones cut the masks: figures with and without zones cannot be compared. Empty without zones."""
    if not evaluation.has_zones:
        return ""
    count = evaluation.ignored_defects
    ignored = (
        f" {count} defective part{' has its' if count == 1 else 's have their'} whole defect in an ignored place and "
        f"count{'s' if count == 1 else ''} as sound."
        if count
        else ""
    )
    sentence = "Zones: the masks of defects are cut like the parts, so these figures hold for inspected places only."
    return f'<p class="soft">{sentence}{ignored}</p>'


def _decisions(report: Report) -> str:
    if report.evaluation is None:
        return ""
    rows = []
    not_found_counts = report.evaluation.not_found()
    for category, truths in report.evaluation.decisions().items():
        sound, defective, not_found = truths["sound"], truths["defective"], not_found_counts[category]
        total = sum(sound.values())
        rejected = f"{100 * sound['NG'] / total:.1f} %" if total else "–"
        promise = (
            f"≤ {100 * report.calibration.limits[category].reject_promise:.1f} %"
            if category in report.calibration.limits
            else "–"
        )
        rows.append(
            [
                category,
                *(str(sound[d]) for d in ("OK", "RE-INSPECT")),
                with_not_found(sound["NG"], not_found["sound"]),
                rejected,
                promise,
                *(str(defective[d]) for d in ("OK", "RE-INSPECT")),
                with_not_found(defective["NG"], not_found["defective"]),
            ]
        )
    head = [
        "category",
        "sound: OK",
        "RE-INSPECT",
        "NG",
        "false NG",
        "promised",
        "defective: OK (missed)",
        "RE-INSPECT",
        "NG",
    ]
    return f"<h2>Decisions on the test parts</h2>{card_table(head, rows)}"


def _data(report: Report) -> str:
    splits = ("train", "calibration", "validation", "test", "defective")
    rows = [[name, *(str(counts[split]) for split in splits)] for name, counts in report.data["counts"].items()]
    licence = f" Licence: {escape(str(report.data['licence']))}." if report.data.get("licence") else ""
    return (
        f"<h2>Data</h2><p>Layout {escape(str(report.data['layout']))}.{licence} Calibration and validation parts are sound "
        "and were never trained on; defective parts are used for testing only.</p>"
        f"{card_table(['category', *splits[:-1], 'defective (in test)'], rows)}"
    )


def _advice(report: Report) -> str:
    """The advice on the pictures of sound parts, each piece with pictures that show the reason; empty without advice."""
    if not report.advice:
        return ""
    return f"<h2>What the pictures are like</h2>{''.join(_one_advice(each, report) for each in report.advice)}"


def _one_advice(advice: Advice, report: Report) -> str:
    # The command has the data set's name, not its path: a page that is passed on must not show this machine's folders.
    command = advice.command(str(report.data["name"]))
    shown = f"<pre>{escape(printable(command))}</pre>" if command else ""
    alt = escape(printable(f"{advice.category}: pictures that show it, {advice.topic}"))
    picture = (
        f'<img src="{data_uri(advice.picture)}" alt="{alt}" loading="lazy" style="max-width:100%">'
        if advice.picture is not None
        else ""
    )
    return (
        f'<div class="card"><h3>{escape(printable(advice.category))}: {escape(advice.topic)}</h3>'
        f"<p>{_sentence(advice.text)} <b>{_sentence(advice.remedy)}</b></p>{shown}{picture}</div>"
    )


def _sentence(text: str) -> str:
    return f"{escape(printable(text[:1].upper() + text[1:]))}."


def _use(report: Report) -> str:
    if report.artifact is None:
        return ""
    name = escape(report.artifact)
    example = {
        "score": 1.73,
        "decision": "NG",
        "regions": [{"x": 212, "y": 96, "width": 41, "height": 37, "area": 1180, "peak": 2.9}],
    }
    return (
        "<h2>Use the artifact</h2><p>One file, no torch: <code>pip install 'inspect-kd[cpu]'</code> on the line.</p>"
        f"<pre>inspect-kd predict {name} IMAGES… --overlays out/\n\nfrom inspect_kd import Inspector\n"
        f'inspect = Inspector("{name}")\nresult = inspect("part.png")        # a path or a NumPy array\n'
        "result.decision, result.score, result.regions, result.heatmap</pre>"
        f'<p class="soft">A line of the output looks like this: <code>{escape(json.dumps(example))}</code></p>'
    )


STAGE_NAMES = {
    "fit": "loss of the fit, on sound parts",
    "align": "loss of stage S1 (align): the teachers' tokens",
    "supervise": "loss of stage S2 (supervise): synthetic and labelled defects",
    "refine": "loss of stage S3 (refine): the teachers' heatmaps and scores",
}


def _training(report: Report) -> str:
    gaps = [(float(line["step"]), float(line["gap"])) for line in report.history if "gap" in line]
    curves = [draw_curve(points, STAGE_NAMES.get(stage, stage)) for stage, points in _losses(report).items()]
    curves.insert(1, draw_curve(gaps, "AP on synthetic defects during the fit"))
    return (
        f'<h2>Training</h2><div class="card curves">{"".join(curves)}</div>'
        f'<p class="soft">{escape(" ".join([_kept_weights(report), *_distillation(report)]))}</p>'
        f"<details><summary>Recipe, as resolved</summary><pre>{escape(report.recipe)}</pre></details>"
    )


def _kept_weights(report: Report) -> str:
    """Describe which weights of the fit were kept; for a teacher, its validation metrics."""
    best = report.facts.get("best_step")
    if "stages" in report.facts and not best:
        return "The fitted model comes from another run; this run trained the later stages."
    if best is not None:
        return f"Kept from the fit: the weights of step {best}, which detected synthetic defects on held-out sound parts best."
    figures = ", ".join(
        f"{name.replace('_', ' ')} {value:.3f}" for name, value in report.facts.get("examined", {}).items()
    )
    return f"A teacher. On synthetic defects on held-out sound parts: {figures}." if figures else "A teacher."


def _losses(report: Report) -> dict[str, list[tuple[float, float]]]:
    """Return the losses by stage, thinned to a few hundred points each."""
    losses: dict[str, list[tuple[float, float]]] = {}
    for line in report.history:
        if "loss" in line:
            losses.setdefault(str(line.get("stage", "fit")), []).append((float(line["step"]), float(line["loss"])))
    return {stage: points[:: max(1, len(points) // 300)] for stage, points in losses.items()}


def _distillation(report: Report) -> list[str]:
    """Describe the teachers and real parts that the distillation used."""
    facts = report.facts
    sentences = [
        f"Taught by {name} on {teacher['images']:,} images." for name, teacher in facts.get("taught_by", {}).items()
    ]
    if facts.get("labelled"):
        sentences.append(f"{facts['labelled']} labelled parts were used.")
    if facts.get("unlabelled"):
        sentences.append(f"{facts['unlabelled']} unlabelled parts were used.")
    return sentences


def _environment(report: Report) -> str:
    content = {"environment": report.environment, "parity": report.facts.get("parity", {})}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    return f"<details><summary>Environment and parity figures</summary><pre>{escape(text)}</pre></details>"


def report_json(report: Report) -> Mapping[str, Any]:
    """Return the page's content as JSON, for programs."""
    evaluation = report.evaluation.to_json() if report.evaluation else {}
    scores = [
        {
            "image": v.sample.image.name,
            "category": v.sample.category,
            "kind": v.sample.kind,
            "score": round(v.score, 6),
            "decision": str(v.decision),
            **({"cause": NOT_FOUND, "explanation": v.not_found} if v.not_found else {}),
        }
        for v in (report.evaluation.verdicts if report.evaluation else [])
    ]
    return {
        "title": report.title,
        "data": report.data,
        "calibration": report.calibration.to_json(),
        **evaluation,
        "scores": scores,
        "environment": report.environment,
        "facts": report.facts,
        "advice": [advice.to_json(str(report.data["name"])) for advice in report.advice],
    }
