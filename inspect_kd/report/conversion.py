"""Write the conversion report, which compares an artifact with its PyTorch student, as a page and as JSON."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from inspect_kd import atomic_write
from inspect_kd.calibrate import POOLED
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.deploy import Conversion
from inspect_kd.report.charts import draw_agreement
from inspect_kd.report.html import card_table, document, figure_boxes

MAX_LISTED = 40
"""Largest number of convolutions that are listed by name."""
FASTER, SLOWER = 0.97, 1.03
"""Two times are called equal if their ratio lies between these."""


def write_conversion(conversion: Conversion, artifact: Path, card: ArtifactCard) -> Path:
    """Write `<artifact>.conversion.html` and `.json` beside the artifact; return the path of the page."""
    to = artifact.with_name(f"{artifact.name}.conversion.html")
    facts = {"artifact": artifact.name, "made": card.created, "versions": dict(card.versions), **conversion.to_json()}
    atomic_write.write_text(to.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")
    atomic_write.write_text(to, _page(conversion, artifact, card))
    return to


def describe_speed(conversion: Conversion) -> str:
    """Describe the time relative to plain fp32; empty for plain fp32 itself."""
    if not conversion.times:
        return ""
    ratio = time_ratio(conversion)
    if ratio < FASTER:
        return f"{1 / ratio:.2f} times as fast as plain fp32 in ONNX Runtime on one thread of this machine"
    if ratio <= SLOWER:
        return "as fast as plain fp32 in ONNX Runtime on one thread of this machine"
    return f"{ratio:.2f} times as slow as plain fp32 in ONNX Runtime on one thread of this machine: prefer the target `onnx` there"


def time_ratio(conversion: Conversion) -> float:
    """The artifact's CPU time divided by that of plain fp32."""
    return conversion.times["this"]["cpu_ms"] / conversion.times["fp32"]["cpu_ms"]


def _page(conversion: Conversion, artifact: Path, card: ArtifactCard) -> str:
    deployment = conversion.deployment
    sections = [
        _key_figures(conversion),
        _outcome(conversion),
        _differences(conversion),
        _categories(conversion),
        _thresholds(conversion),
        _kept_in_fp32(conversion),
        _times(conversion),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(card.versions.items()))
    return document(
        title=f"{artifact.name} · inspect-kd",
        heading=artifact.name,
        subtitle=f'<p class="soft">Deployment {escape(deployment.name)}: {escape(deployment.about)}</p>',
        body=f"{''.join(sections)}<footer>{escape(versions)} · {escape(card.created)}</footer>",
    )


def _key_figures(conversion: Conversion) -> str:
    parity = conversion.parity
    flips = parity.flips + parity.near_flips
    figures = [
        (f"{flips}", f"of {parity.real_images} decisions flip"),
        (_figure(parity.auroc, 4), "largest change of image AUROC"),
        (f"{parity.score:.2g}", "largest change of a score (1.0 is the threshold)"),
        (f"{conversion.file_bytes / 1e6:.1f} MB", f"file; plain fp32 {conversion.plain_bytes / 1e6:.1f} MB"),
    ]
    if conversion.times:
        figures.append((f"{time_ratio(conversion):.2f}", "of plain fp32's CPU time"))
    return figure_boxes(figures)


def _outcome(conversion: Conversion) -> str:
    if conversion.exceeded_limits:
        text = f'<p><span class="badge NG">REFUSED</span> {escape(conversion.describe_exceeded_limits())}. No artifact was written.</p>'
    else:
        text = '<p><span class="badge OK">ACCEPTED</span> It matches the student within all limits.</p>'
    comparison = describe_speed(conversion)
    return text + (f"<p>It is {escape(comparison)}.</p>" if comparison else "")


def _differences(conversion: Conversion) -> str:
    """Return two columns: a chart of each score before and after, and a table of the differences with their limits."""
    parity, accept = conversion.parity, conversion.deployment.accept
    reject = conversion.before.for_category(None).thresholds.reject
    chart = draw_agreement(
        parity.scores, [reject], "score in torch, fp32", "score in this file; red lines: NG threshold"
    )
    rows = [
        ("largest difference of a score", f"{parity.score:.3g}", _limit(accept.score)),
        ("largest difference in a heatmap", f"{parity.heatmap:.3g}", _limit(accept.heatmap)),
        ("mean difference of heatmaps", f"{parity.heatmap_mean:.3g}", "-"),
        ("change of image AUROC, worst category", _figure(parity.auroc, 5), _limit(accept.auroc)),
        ("decisions that flip", f"{parity.flips} of {parity.real_images}", f"{100 * accept.flips:g} %"),
        (
            f"… within {accept.guard:g} of a threshold",
            f"{parity.near_flips} of {parity.near_threshold}",
            "-",
        ),
    ]
    batches = ", ".join(map(str, parity.batches))
    note = f"Compared with torch on {parity.real_images} real images and on artificial ones, at batch sizes {batches}."
    columns = f'<div class="card">{chart}</div>{card_table(("figure", "measured", "limit"), rows)}'
    return (
        f'<h2>Scores before and after, and the limits</h2><p class="soft">{note}</p><div class="curves">{columns}</div>'
    )


def _categories(conversion: Conversion) -> str:
    parity = conversion.parity
    rows = [
        (
            "all" if name == POOLED else name,
            f"{before:.4f}",
            f"{after:.4f}",
            str(parity.flips if name == POOLED else parity.flips_by_category.get(name, 0)),
        )
        for name, (before, after) in parity.aurocs.items()
    ]
    return (
        f"<h2>By category</h2>{card_table(('category', 'AUROC in torch', 'in this file', 'decisions that flip'), rows)}"
        if rows
        else ""
    )


def _thresholds(conversion: Conversion) -> str:
    if conversion.before is conversion.after:
        return ""
    rows = []
    for name in conversion.before.limits:
        before, after = (calibration.limits[name].thresholds for calibration in (conversion.before, conversion.after))
        rows.append(
            (
                "all" if name == POOLED else name,
                *(f"{thresholds.reinspect:.3f} / {thresholds.reject:.3f}" for thresholds in (before, after)),
            )
        )
    note = "Calibrated again on this file's scores of the held-out sound parts: the promised rates hold for this file."
    return f'<h2>Thresholds</h2><p class="soft">{note} Re-inspect / reject.</p>{card_table(("category", "student", "this file"), rows)}'


def _kept_in_fp32(conversion: Conversion) -> str:
    quantised = conversion.quantised
    if quantised is None:
        return ""
    note = (
        f"{quantised.convolutions - len(quantised.left)} of {quantised.convolutions} convolutions compute in int8. The others stay in "
        "fp32: with all of them in int8, a score on held-out parts, sound and synthetic, would change by more than "
        f"{conversion.deployment.quantise.score:g}; now it changes by {quantised.score:.3g}."
    )
    rows = [(convolution.node, f"{convolution.heatmap:.2g}") for convolution in quantised.left[:MAX_LISTED]]
    table = card_table(("convolution", "mean change of the heatmap with this one alone in int8"), rows)
    return f'<h2>Convolutions in fp32</h2><p class="soft">{note}</p>{table}'


def _times(conversion: Conversion) -> str:
    keys = ("cpu_ms", "p50_ms", "p90_ms", "p99_ms")
    rows = [
        ("this file" if name == "this" else "plain fp32 in ONNX Runtime", *(f"{times[key]:.2f}" for key in keys))
        for name, times in conversion.times.items()
    ]
    return f"<h2>Time of one image</h2>{card_table(('', 'CPU ms', 'p50 ms', 'p90 ms', 'p99 ms'), rows)}" if rows else ""


def _limit(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
