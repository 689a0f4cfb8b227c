"""CSV that a spreadsheet opens as a table of values: no text in it, whoever chose it, becomes a formula.

Unusual here: a spreadsheet may split cells at `;` or a tab as well, by the country it is set to. So `a;=1+1` is as dangerous as
`=1+1`: each place where a cell could begin gets an apostrophe, and every text stands in quotes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_FORMULA = re.compile(r"(^|[;,|\t\r\n])([\s\"']*)([=+\-@＝＋－＠])")
"""The beginning of a cell, what a spreadsheet may skip there, and what it takes for the beginning of a formula."""


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A header and a line each; keys that are no column are left out."""
    out = io.StringIO()
    table = csv.DictWriter(out, columns, extrasaction="ignore", quoting=csv.QUOTE_NONNUMERIC)
    table.writeheader()
    table.writerows({name: plain_cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def plain_cell(value: Any) -> Any:
    """A text without formulas; anything else as it is."""
    return _FORMULA.sub(r"\1\2'\3", value) if isinstance(value, str) else value
