"""What became of a student on its way into one file: a page and a JSON beside the artifact, or where it would have been."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path

from inspect_kd import atomic_write
from inspect_kd.export.card import ArtifactCard
from inspect_kd.export.deploy import Conversion
from inspect_kd.report.charts import agreement

MOST_LEFT = 40
"""Convolutions that are listed by name."""
FASTER, SLOWER = 0.97, 1.03
"""Ratios of time between which nobody should claim either."""


def write_conversion(conversion: Conversion, artifact: Path, card: ArtifactCard) -> Path:
    """`<artifact>.conversion.html` and `.json`; returns the page."""
    to = artifact.with_name(f"{artifact.name}.conversion.html")
    facts = {"artifact": artifact.name, "made": card.created, "versions": dict(card.versions), **conversion.to_json()}
    atomic_write.write_text(to.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")
    atomic_write.write_text(to, _page(conversion, artifact, card))
    return to


def speed(conversion: Conversion) -> str:
    """The time beside plain fp32 in words; empty where this is plain fp32."""
    if not conversion.times:
        return ""
    ratio = time_ratio(conversion)
    if ratio < FASTER:
        return f"{1 / ratio:.2f} times as fast as plain fp32 in ONNX Runtime on one thread of this machine"
    if ratio <= SLOWER:
        return "as fast as plain fp32 in ONNX Runtime on one thread of this machine"
    return f"{ratio:.2f} times as slow as plain fp32 in ONNX Runtime on one thread of this machine: take `onnx` on such a one"


def time_ratio(conversion: Conversion) -> float:
    return conversion.times["this"]["cpu_ms"] / conversion.times["fp32"]["cpu_ms"]


def _page(conversion: Conversion, artifact: Path, card: ArtifactCard) -> str:
    style = (files("inspect_kd.report") / "style.css").read_text(encoding="utf-8")
    deployment = conversion.deployment
    sections = [_tiles(conversion), _verdict(conversion), _limits(conversion)]
    sections += [_categories(conversion), _thresholds(conversion), _kept(conversion), _times(conversion)]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(card.versions.items()))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(artifact.name)} · inspect-kd</title><style>\n{style}</style></head>\n<body><header>"
        f'<h1>{escape(artifact.name)}</h1><p class="soft">Deployment {escape(deployment.name)}: {escape(deployment.about)}</p></header>'
        f"<main>{''.join(sections)}<footer>{escape(versions)} · {escape(card.created)}</footer></main></body></html>\n"
    )


def _tiles(conversion: Conversion) -> str:
    parity = conversion.parity
    flips = parity.flips + parity.near_flips
    tiles = [
        (f"{flips}", f"of {parity.real_images} decisions flip"),
        (_figure(parity.auroc, 4), "largest change of image AUROC"),
        (f"{parity.score:.2g}", "largest change of a score (1.0 is the threshold)"),
        (f"{conversion.file_bytes / 1e6:.1f} MB", f"file; plain fp32 {conversion.plain_bytes / 1e6:.1f} MB"),
    ]
    if conversion.times:
        tiles.append((f"{time_ratio(conversion):.2f}", "of plain fp32's CPU time"))
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _verdict(conversion: Conversion) -> str:
    if conversion.missed:
        text = (
            f'<p><span class="badge NG">REFUSED</span> {escape(conversion.complaint())}. No artifact was written.</p>'
        )
    else:
        text = '<p><span class="badge OK">ACCEPTED</span> It answers like the student within all limits.</p>'
    told = speed(conversion)
    return text + (f"<p>It is {escape(told)}.</p>" if told else "")


def _limits(conversion: Conversion) -> str:
    """Two columns: what happened to every score, and what was held against what."""
    parity, accept = conversion.parity, conversion.deployment.accept
    reject = conversion.before.limits_for(None).thresholds.reject
    chart = agreement(parity.scores, [reject], "score in torch, fp32", "score in this file; the red lines: reject")
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
    note = f"Held against torch on {parity.real_images} real images and on artificial ones, at batches {batches}."
    columns = f'<div class="card">{chart}</div>{_table(("figure", "found", "limit"), rows)}'
    return (
        f'<h2>Scores before and after, and the limits</h2><p class="soft">{note}</p><div class="curves">{columns}</div>'
    )


def _categories(conversion: Conversion) -> str:
    parity = conversion.parity
    rows = [
        (
            "all" if name == "*" else name,
            f"{before:.4f}",
            f"{after:.4f}",
            str(parity.flips if name == "*" else parity.flips_by_category.get(name, 0)),
        )
        for name, (before, after) in parity.aurocs.items()
    ]
    return (
        f"<h2>By category</h2>{_table(('category', 'AUROC in torch', 'in this file', 'decisions that flip'), rows)}"
        if rows
        else ""
    )


def _thresholds(conversion: Conversion) -> str:
    if conversion.before is conversion.after:
        return ""
    rows = []
    for name in conversion.before.limits:
        before, after = (one.limits[name].thresholds for one in (conversion.before, conversion.after))
        told = (f"{one.reinspect:.3f} / {one.reject:.3f}" for one in (before, after))
        rows.append(("all" if name == "*" else name, *told))
    note = "Derived anew from this file's own answers on the held-out sound parts: the promise holds for this file."
    return f'<h2>Thresholds</h2><p class="soft">{note} Re-inspect / reject.</p>{_table(("category", "student", "this file"), rows)}'


def _kept(conversion: Conversion) -> str:
    found = conversion.quantised
    if found is None:
        return ""
    note = (
        f"{found.convolutions - len(found.left)} of {found.convolutions} convolutions compute in bytes. The others stay in fp32: taken "
        f"together with those, a score on held-out parts, sound and damaged, would move by more than "
        f"{conversion.deployment.quantise.score:g}; as it is, by {found.score:.3g}."
    )
    rows = [(left.node, f"{left.heatmap:.2g}") for left in found.left[:MOST_LEFT]]
    table = _table(("convolution", "mean change of the heatmap, it alone in bytes"), rows)
    return f'<h2>What stayed in fp32</h2><p class="soft">{note}</p>{table}'


def _times(conversion: Conversion) -> str:
    rows = [
        ("this file" if name == "this" else "plain fp32 in ONNX Runtime", *(f"{times[key]:.2f}" for key in keys))
        for keys in [("cpu_ms", "p50_ms", "p90_ms", "p99_ms")]
        for name, times in conversion.times.items()
    ]
    return f"<h2>Time of one image</h2>{_table(('', 'CPU ms', 'p50 ms', 'p90 ms', 'p99 ms'), rows)}" if rows else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="card scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _limit(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
