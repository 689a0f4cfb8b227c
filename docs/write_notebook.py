"""Write docs/example.ipynb from docs/example.py, whose cells begin with `# %%`. `make docs` runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

SCRIPT = Path(__file__).with_name("example.py")
NOTEBOOK = SCRIPT.with_suffix(".ipynb")


def page() -> str:
    """Return the notebook as JSON: one cell for each cell of the script, without outputs."""
    pieces = re.split(r"^# %%(.*)\n", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    cells = [
        cell(kind, text.strip("\n"), number)
        for number, (kind, text) in enumerate(zip(pieces[1::2], pieces[2::2], strict=True))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1) + "\n"


def cell(kind: str, text: str, number: int) -> dict[str, object]:
    header: dict[str, object] = {"id": f"cell-{number}", "metadata": {}}
    if "markdown" in kind:
        text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines())
        return header | {"cell_type": "markdown", "source": text}
    return header | {"cell_type": "code", "source": text, "execution_count": None, "outputs": []}


if __name__ == "__main__":
    NOTEBOOK.write_text(page(), encoding="utf-8")
