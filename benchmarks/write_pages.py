"""Write every page of docs/results again from its JSON, without measuring. `make docs` runs it.

    python -m benchmarks.write_pages [--check]

`--check` compares instead, names the pages that are not current, and exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
from importlib import import_module

from benchmarks.results import RESULTS, load_results

PAGES = {
    "ablation": "ablation",
    "advice": "advice",
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
    "presentation": "presentation",
    "real_data_embedded": "real_data",
    "real_data_omni_ad": "real_data",
    "studio": "studio",
    "teachers": "teachers",
    "unlabelled": "unlabelled",
}
"""Page → the program in this folder that measures its results and has the function `page`."""
JSON_OF = {"aims": "bench"}
"""Pages that are written from another page's JSON."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check = parser.parse_args().check
    texts = {file: text for name in PAGES for file, text in files_of(name).items()}
    stale = {file: text for file, text in texts.items() if (RESULTS / file).read_text(encoding="utf-8") != text}
    for file, text in stale.items():
        print(f"docs/results/{file}: {'not current' if check else 'written'}")
        if not check:
            (RESULTS / file).write_text(text, encoding="utf-8")
    return int(check and bool(stale))


def files_of(name: str) -> dict[str, str]:
    """Return the text of each file of a page, written from its JSON."""
    module, content = import_module(f"benchmarks.{PAGES[name]}"), load_results(JSON_OF.get(name, name))
    files = {f"{name}.md": str(module.page(content))}
    return files | {"bench.html": str(module.html_page(content))} if name == "bench" else files


if __name__ == "__main__":
    raise SystemExit(main())
