"""Write a comparison as an HTML page with plots, a Markdown table, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from inspect_kd import atomic_write
from inspect_kd.bench.cost import ROUNDS
from inspect_kd.bench.entries import SIZE, Entry
from inspect_kd.bench.runner import Results
from inspect_kd.evaluate import MEAN
from inspect_kd.metrics import METRICS
from inspect_kd.report.charts import Point, draw_scatter
from inspect_kd.report.html import card_table, document
from inspect_kd.spreadsheet import csv_text
from inspect_kd.stopwatch import MAX_RUNS

COSTS = ("cpu_ms", "p50_ms", "p99_ms", "batched_cpu_ms", "gflop", "file_mb", "memory_mb")
CSV_COLUMNS = ("setting", "entry", "category", *METRICS, *COSTS, "train_seconds", "note", "failure")
TABLE_METRICS = ("image_auroc", "pixel_ap", "pixel_aupro")
METRIC_NAMES = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP", "pixel_aupro": "AUPRO"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Everything measured in one comparison."""

    entries: Mapping[str, Entry]
    results: Results
    costs: Mapping[str, Mapping[str, float]]
    """Costs of the first setting's files, by entry; empty if nothing was timed."""
    environment: Mapping[str, Any]


def write(out: Path, comparison: Comparison) -> Path:
    """Write bench.html, bench.md, bench.csv and bench.json, and return the path of bench.html."""
    out.mkdir(parents=True, exist_ok=True)
    content = {"environment": comparison.environment, "results": comparison.results, "costs": comparison.costs}
    atomic_write.write_text(out / "bench.json", json.dumps(content, indent=1) + "\n")
    atomic_write.write_text(out / "bench.csv", csv_text(CSV_COLUMNS, _records(comparison)))
    atomic_write.write_text(out / "bench.md", markdown(comparison))
    page = out / "bench.html"
    atomic_write.write_text(page, html(comparison))
    return page


def _records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    timed_setting = next(iter(comparison.results), None)
    for setting, by_entry in comparison.results.items():
        for key, result in by_entry.items():
            cost = dict(comparison.costs.get(key, {})) if setting == timed_setting else {}
            common = {"setting": setting, "entry": comparison.entries[key].name} | cost | result
            for category, metrics in (result.get("metrics") or {"": {}}).items():
                yield common | metrics | {"category": category}


def _accuracy_rows(entries: Mapping[str, Entry], by_entry: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: entries by their mean, the best first, then failures with their errors."""
    measured = {key: result for key, result in by_entry.items() if result.get("metrics")}
    # With a single category the mean would repeat its column.
    categories = list(next(iter(measured.values()))["metrics"]) if measured else [MEAN]
    categories = [c for c in categories if c != MEAN] if len(categories) == 2 else categories
    ranked = sorted(measured, key=lambda key: -(_metric_value(measured[key], categories[-1], TABLE_METRICS[0]) or 0))
    rows = []
    for key in ranked:
        cells = [
            " / ".join(_format(_metric_value(by_entry[key], category, m)) for m in TABLE_METRICS)
            for category in categories
        ]
        rows.append(
            [entries[key].name, *cells, f"{by_entry[key]['train_seconds'] / 60:.1f}", by_entry[key].get("note", "")]
        )
    for key, result in by_entry.items():
        if key not in measured:
            rows.append([entries[key].name, *["–"] * len(categories), "–", result.get("failure", "")])
    return ["model", *categories, "minutes", "remarks"], rows


def _cost_rows(comparison: Comparison) -> list[list[str]]:
    entries, costs, by_entry = comparison.entries, comparison.costs, next(iter(comparison.results.values()))
    gflop = {key: result["gflop"] for key, result in by_entry.items() if "gflop" in result}
    fastest = min((costs[key]["cpu_ms"] for key in costs if entries[key].light), default=None)
    rows = []
    for key in sorted(costs, key=lambda key: costs[key]["cpu_ms"]):
        cost = costs[key]
        share = gflop[key] / cost["cpu_ms"] * 1e3 / cost["peak_gflops"] if key in gflop else None
        rows.append(
            [
                entries[key].name,
                *[_format(cost.get(name), 1) for name in ("cpu_ms", "p50_ms", "p99_ms", "batched_cpu_ms")],
                _format(gflop.get(key), 2),
                "–" if share is None else f"{share:.0%}",
                *[_format(cost.get(name), 1) for name in ("file_mb", "memory_mb")],
                "–" if fastest is None else f"{cost['cpu_ms'] / fastest:.2f}",
            ]
        )
    return rows


COST_HEADER = [
    "model",
    "CPU ms",
    "p50 ms",
    "p99 ms",
    "ms per image, batches of 8",
    "GFLOP",
    "share of peak",
    "file MB",
    "memory MB",
    "times the fastest light peer",
]


def markdown(comparison: Comparison) -> str:
    lines = ["# Side by side", "", " ".join(_describe_conditions(comparison.environment)), ""]
    for setting, by_entry in comparison.results.items():
        header, rows = _accuracy_rows(comparison.entries, by_entry)
        lines += [f"## {setting}: {' / '.join(METRIC_NAMES.values())}", "", *_markdown_table(header, rows), ""]
    if comparison.costs:
        lines += ["## Cost of one image", "", *_markdown_table(COST_HEADER, _cost_rows(comparison)), ""]
    return "\n".join(lines)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "¦") for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *cells]]


def html(comparison: Comparison) -> str:
    sections = [
        "".join(f'<p class="soft">{escape(sentence)}</p>' for sentence in _describe_conditions(comparison.environment))
    ]
    for setting, by_entry in comparison.results.items():
        header, rows = _accuracy_rows(comparison.entries, by_entry)
        sections.append(f"<h2>{escape(setting)}</h2>{_plots(comparison, by_entry)}")
        sections.append(
            f'<p class="soft">A cell: {" / ".join(METRIC_NAMES.values())}.</p>{card_table(header, rows, classes="remarked")}'
        )
    if comparison.costs:
        sections.append(f"<h2>Cost of one image</h2>{card_table(COST_HEADER, _cost_rows(comparison))}")
    return document(title="Side by side · inspect-kd", heading="Side by side", subtitle="", body="".join(sections))


def _plots(comparison: Comparison, by_entry: Mapping[str, Any]) -> str:
    """Plot accuracy over latency; entries further up and left are better."""
    charts = []
    for metric in TABLE_METRICS:
        points = []
        for key, result in by_entry.items():
            value = _metric_value(result, MEAN, metric)
            if value is not None and key in comparison.costs:
                entry = comparison.entries[key]
                points.append(Point(entry.name, comparison.costs[key]["cpu_ms"], value, entry.maker == "ours"))
        charts.append(
            draw_scatter(points, x_label="CPU ms per image, one thread", y_label=f"mean {METRIC_NAMES[metric]}")
        )
    return f'<div class="plots">{"".join(charts)}</div>'


def _describe_conditions(environment: Mapping[str, Any]) -> list[str]:
    packages = environment["packages"]
    return [
        f"Written by `{environment['command']}`, {environment['started'][:10]}, {environment['cores']} CPU cores, torch "
        f"{packages.get('torch')}, anomalib {packages.get('anomalib')}, ONNX Runtime {packages.get('onnxruntime')}.",
        *environment.get("remarks", []),
        f"All models get the same images at {SIZE}x{SIZE} and the same splits; test labels are used neither for stopping nor for "
        "checkpoints. Ours train as their recipe says; a peer for its own number of epochs or a time limit, whichever ends first. The "
        "remarks say which peers were stopped early: they might do better with more time.",
        "Times are those of the first setting's files, from pixels to heatmap and score on one thread of ONNX Runtime. All files were "
        f"timed in one process, in turns, on up to {ROUNDS * MAX_RUNS} images each; slow files on fewer. Times differ between machines and "
        "moments; their ratios are comparable.",
    ]


def _metric_value(result: Mapping[str, Any], category: str, metric: str) -> float | None:
    value = result.get("metrics", {}).get(category, {}).get(metric)
    return value if isinstance(value, float) else None


def _format(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
