"""Run `inspect-kd bench` on the development set: one model for all categories, and one for each. Writes docs/results/bench.* and aims.md.

    INSPECT_KD_REAL_DATA=… INSPECT_KD_WEIGHTS=… python -m benchmarks.peers [--only unified tile] [--rows stfpm …]

Finished results under --out are kept, so the program can be stopped and called again. It takes hours on two cores. With --rows
only these models are measured again: other rows and all times stay as published, and a student in --rows loses its published time
(latency.md has a newer one).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import aims
from benchmarks.real_data import SETS, load_categories
from benchmarks.results import RESULTS, ROOT, Content, load_results
from inspect_kd.bench import page as bench_page
from inspect_kd.bench import runner
from inspect_kd.bench.entries import MEMORY, PEERS, select_entries
from inspect_kd.progress_display import show_progress
from inspect_kd.training.run import environment

OURS = ["omni_ad", "embedded"]
DEVELOPMENT_NOTE = "These categories are our development set: our defaults, one setting for all, were chosen on them; the peers' were not."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=["unified", *SETS], default=["unified", *SETS])
    parser.add_argument(
        "--rows", nargs="*", choices=[*OURS, *MEMORY, *PEERS], help="measure only these again; default: all"
    )
    parser.add_argument(
        "--minutes", type=float, help="time limit of a peer's training; default: the time of our slowest student"
    )
    parser.add_argument("--leave-failures", action="store_true", help="do not try failed entries again")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-peers")
    arguments = parser.parse_args()
    data_by_setting = {
        name if name == "unified" else f"{name} alone": load_categories(
            list(SETS) if name == "unified" else [name], OURS[0]
        )
        for name in arguments.only
    }
    chosen = select_entries(OURS, [*MEMORY, *PEERS])
    published = load_results("bench") if arguments.rows else None
    with show_progress() as progress:
        results = runner.run_benchmark(
            data_by_setting,
            chosen,
            arguments.out,
            arguments.minutes,
            progress,
            published=without_rows(published["results"], arguments.rows) if published else None,
            retry_failed=not arguments.leave_failures,
        )
        costs = (
            {key: cost for key, cost in published["costs"].items() if key not in set(OURS) & set(arguments.rows)}
            if published
            else runner.measure_costs(chosen, arguments.out, next(iter(data_by_setting)), progress)
        )
    machine = environment("cpu")
    times_commit = commit_of_times(published["environment"]) if published else machine["commit"]
    measured_rows = arguments.rows or list(chosen)
    for by_entry in results.values():
        for key, row in by_entry.items():
            row["commit"] = (
                machine["commit"]
                if key in measured_rows
                else row.get("commit", commit_of_times(published["environment"]))
            )
    commits = {key: row["commit"] for by_entry in results.values() for key, row in by_entry.items()}
    rows_by_commit = "; ".join(
        f"{commit}: {', '.join(chosen[key].name for key in commits if commits[key] == commit)}"
        for commit in dict.fromkeys(commits.values())
    )
    machine |= {
        "times_of": times_commit,
        "remarks": [DEVELOPMENT_NOTE, f"Times are of commit {times_commit}, rows of {rows_by_commit}."],
    }
    bench_page.write(RESULTS, comparison({"results": results, "costs": costs, "environment": machine}))
    aims.write()
    print((RESULTS / "bench.md").read_text(), (RESULTS / "aims.md").read_text(), sep="\n")


def comparison(content: Content) -> bench_page.Comparison:
    return bench_page.Comparison(entries=select_entries(OURS, [*MEMORY, *PEERS]), **content)


def page(content: Content) -> str:
    return bench_page.markdown(comparison(content))


def html_page(content: Content) -> str:
    """Return the page with charts."""
    return bench_page.html(comparison(content))


def commit_of_times(environment: dict[str, Any]) -> str:
    """Return the commit at which the times on a page were measured."""
    commit: str = environment.get("times_of", environment["commit"])
    return commit


def without_rows(results: runner.Results, rows: list[str]) -> runner.Results:
    """Return the results without some rows."""
    return {
        setting: {key: row for key, row in by_entry.items() if key not in rows} for setting, by_entry in results.items()
    }


if __name__ == "__main__":
    main()
