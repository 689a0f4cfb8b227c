"""Write every page of docs/results anew from its JSON, without measuring anything. `make docs` runs it.

    python -m benchmarks.write_pages [--check]

`--check` compares instead, names the pages that are not current, and exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
from importlib import import_module

from benchmarks.results import RESULTS, load_results

PAGES = {
    "ablation": "ablation",
    "agreement": "agreement",
    "aims": "aims",
    "bench": "peers",
    "blend": "blend",
    "chain": "chain",
    "distillation": "distillation",
    "exports": "exports",
    "fuzz": "fuzz",
    "labelling": "labelling",
    "latency": "latency",
    "memory": "memory",
    "real_data_embedded": "real_data",
    "real_data_omni_ad": "real_data",
    "studio": "studio",
    "teachers": "teachers",
    "unlabelled": "unlabelled",
}
"""Page → the program in this folder that measures its figures and has the function `page`."""
FIGURES_OF = {"aims": "bench"}
"""Pages that are made of another page's JSON."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check = parser.parse_args().check
    stale = [name for name in PAGES if (RESULTS / f"{name}.md").read_text(encoding="utf-8") != text_of(name)]
    for name in stale:
        print(f"docs/results/{name}.md: {'not current' if check else 'written anew'}")
        if not check:
            (RESULTS / f"{name}.md").write_text(text_of(name), encoding="utf-8")
    return int(check and bool(stale))


def text_of(name: str) -> str:
    text: str = import_module(f"benchmarks.{PAGES[name]}").page(load_results(FIGURES_OF.get(name, name)))
    return text


if __name__ == "__main__":
    raise SystemExit(main())
