"""Write CSV in which no text can run as a spreadsheet formula.

Unusual here: depending on its locale a spreadsheet also splits cells at `;` or tabs, so `a;=1+1` is as dangerous as `=1+1`.
Every text is quoted, and an apostrophe precedes each character that could start a formula at any possible start of a cell.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_FORMULA = re.compile(r"(^|[;,|\t\r\n])([\s\"']*)([=+\-@＝＋－＠])")
"""The start of a cell, characters that a spreadsheet skips there, and the first character of a formula."""


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Format a header and one line per row; keys that are not a column are left out."""
    out = io.StringIO()
    table = csv.DictWriter(out, columns, extrasaction="ignore", quoting=csv.QUOTE_NONNUMERIC)
    table.writeheader()
    table.writerows({name: plain_cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def plain_cell(value: Any) -> Any:
    """Disarm formulas in a text; return anything else unchanged."""
    return _FORMULA.sub(r"\1\2'\3", value) if isinstance(value, str) else value
