"""Compare the default student with its aims relative to other models. Reads docs/results/bench.json, writes aims.md.

    python -m benchmarks.aims

The page also lists missed aims. `peers.py` writes it, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.results import RESULTS, Content, load_results
from inspect_kd.bench.entries import PEERS, SHARED_ENCODER

OURS = "omni_ad"
HARD_CATEGORY, OTHER_CATEGORIES = "tile", ("bottle", "metal_plate")
MAX_PEER_LEAD = 0.005
"""Largest lead that a peer may have over the default student, in image AUROC."""
MAX_TIME_SHARE = 0.25
"""Largest CPU time that the default student may take, as a share of the fastest light peer's."""


class Aim(NamedTuple):
    text: str
    measured: str
    is_reached: bool


def aims(results: dict[str, Any], costs: dict[str, Any]) -> Iterator[Aim]:
    if "unified" in results:
        yield from aims_against_memory(results["unified"])
    for setting, by_entry in results.items():
        for category in by_entry[OURS]["metrics"]:
            if category != "mean":
                yield from aims_against_peers(setting, category, by_entry, costs)
    yield from time_aims(results, costs)


def aims_against_memory(by_entry: dict[str, Any]) -> Iterator[Aim]:
    """Compare with the nearest-neighbour memory, the reference for accuracy."""
    ours, memory = by_entry[OURS]["metrics"], by_entry["memory"]["metrics"]
    yield _aim_at_least(
        f"{HARD_CATEGORY}: image AUROC at least that of the memory less 0.02",
        ours,
        HARD_CATEGORY,
        "image_auroc",
        memory,
        tolerance=0.02,
    )
    yield _aim_at_least(
        f"{HARD_CATEGORY}: pixel AP at least that of the memory", ours, HARD_CATEGORY, "pixel_ap", memory
    )
    for name in OTHER_CATEGORIES:
        value = ours[name]["image_auroc"]
        yield Aim(f"{name}: image AUROC at least 0.995", f"{value:.3f}", value >= 0.995)
        yield _aim_at_least(f"{name}: pixel AP at least that of the memory", ours, name, "pixel_ap", memory)


def aims_against_peers(setting: str, category: str, by_entry: dict[str, Any], costs: dict[str, Any]) -> Iterator[Aim]:
    """Compare with the finished peers that have the same encoder."""
    where = f"{category} (unified)" if setting == "unified" else setting
    own = by_entry[OURS]["metrics"][category]
    peer_metrics = {
        key: by_entry[key]["metrics"][category]
        for key, entry in PEERS.items()
        if entry.encoder == SHARED_ENCODER and "metrics" in by_entry.get(key, {})
    }
    best = max(peer_metrics, key=lambda key: peer_metrics[key]["image_auroc"])
    lead = peer_metrics[best]["image_auroc"] - own["image_auroc"]
    measured = f"{own['image_auroc']:.3f} against {peer_metrics[best]['image_auroc']:.3f} ({PEERS[best].name})"
    yield Aim(f"{where}: no peer is ahead by more than {MAX_PEER_LEAD} of image AUROC", measured, lead <= MAX_PEER_LEAD)
    not_beaten = []
    for key, theirs in peer_metrics.items():
        is_ahead = [own[metric] > theirs[metric] for metric in ("pixel_ap", "pixel_aupro")]
        is_ahead.append(costs[OURS]["cpu_ms"] < costs[key]["cpu_ms"])
        if sum(is_ahead) < 2:
            not_beaten.append(PEERS[key].name)
    text = f"{where}: it is ahead of each peer in two of pixel AP, AUPRO, latency"
    yield Aim(
        text,
        f"not ahead of {', '.join(not_beaten)}" if not_beaten else f"ahead of all {len(peer_metrics)}",
        not not_beaten,
    )


def time_aims(results: dict[str, Any], costs: dict[str, Any]) -> Iterator[Aim]:
    own = costs[OURS]["cpu_ms"]
    fastest = min((key for key, entry in PEERS.items() if entry.light), key=lambda key: costs[key]["cpu_ms"])
    share = own / costs[fastest]["cpu_ms"]
    yield Aim(
        f"CPU time is at most {MAX_TIME_SHARE} of the fastest light peer's",
        f"{share:.2f} of {PEERS[fastest].name}",
        share <= MAX_TIME_SHARE,
    )
    by_entry = next(iter(results.values()))
    needed = by_entry[OURS]["metrics"]["mean"]["image_auroc"] - MAX_PEER_LEAD
    accurate_peers = [
        key
        for key, entry in PEERS.items()
        if entry.encoder == SHARED_ENCODER
        and by_entry[key].get("metrics", {}).get("mean", {}).get("image_auroc", 0) >= needed
    ]
    faster_peers = [key for key in accurate_peers if costs[key]["cpu_ms"] <= own]
    measured = ", ".join(
        f"{PEERS[key].name} takes {costs[key]['cpu_ms'] / own:.1f} times as long" for key in accurate_peers
    )
    yield Aim(
        "it is faster than every peer on the same encoder that is as accurate",
        measured or "no peer is as accurate",
        not faster_peers,
    )


def _aim_at_least(
    text: str, ours: dict[str, Any], category: str, metric: str, theirs: dict[str, Any], *, tolerance: float = 0.0
) -> Aim:
    own, other = ours[category][metric], theirs[category][metric]
    return Aim(text, f"{own:.3f}, memory {other:.3f}", own >= other - tolerance)


def page(content: Content) -> str:
    """Make the page of the figures in bench.json."""
    rows = list(aims(content["results"], content["costs"]))
    lines = [
        "# Aims, reached and missed",
        "",
        f"Written by `python -m benchmarks.aims` from [bench.json](bench.json) of {content['environment']['started'][:10]}: the default "
        f"student, `{OURS}`, beside its peers. {sum(row.is_reached for row in rows)} of {len(rows)} aims are reached. Peers that were "
        "stopped early are named in the remarks of [bench.md](bench.md) and might do better with more time. What was tried to come nearer: "
        "[ablation.md](ablation.md), [distillation.md](distillation.md), [latency.md](latency.md).",
        "",
        "| aim | measured | |",
        "|---|---|---|",
        *(f"| {row.text} | {row.measured} | {'reached' if row.is_reached else '**missed**'} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def write() -> None:
    (RESULTS / "aims.md").write_text(page(load_results("bench")), encoding="utf-8")


if __name__ == "__main__":
    write()
