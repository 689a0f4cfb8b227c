"""Patterns in file names that may group pictures: regular expressions as `data.group` takes them.

Names are split into fields at `_`, `-`, `.` and blanks: `PA_BDP01_TL_06_2` has five.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SEPARATORS = "_-. "
SAME_FIELDS = 0.95
"""Least share of names that must have the same number of fields."""
MIN_GROUPS = 10
"""Least number of groups: with fewer no split could hold whole groups out."""
MAX_VIEWS = 16
"""Largest number of different last fields that are taken for views of one part, such as `_1` to `_8`."""
MIN_GROUPED, MIN_SIZE = 0.8, 2.0
"""A series is recognised by names alone from this share of pictures in groups of two or more, and this median size of groups."""
CUT_DIGITS = (1, 2, 3)
"""How many last digits of a number may be ignored, so that close numbers fall into one group."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression whose first group names the part."""

    expression: str

    def labels(self, stems: Sequence[str]) -> npt.NDArray[np.intp]:
        """Number the groups; a name that does not match is a group of its own."""
        matches = [re.search(self.expression, stem) for stem in stems]
        keys = [f"group {match[1]}" if match else f"name {stem}" for match, stem in zip(matches, stems, strict=True)]
        return np.asarray(np.unique(keys, return_inverse=True)[1], np.intp).ravel()


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of names: regular expressions that match a separator and a field, and the number of fields."""

    separator: str
    field: str
    count: int
    """0 where the names have different numbers of fields."""

    @staticmethod
    def of(stems: Sequence[str]) -> Fields:
        """Find the separators that occur in names, and the usual number of fields."""
        used = "".join(re.escape(mark) for mark in SEPARATORS if any(mark in stem for stem in stems)) or "_"
        separator = used.replace("\\ ", " ") if len(used.replace("\\", "")) == 1 else f"[{used}]"
        field = f"[^{used}]+"
        counts = Counter(len(re.findall(field, stem)) for stem in stems)
        count, frequency = counts.most_common(1)[0]
        return Fields(separator, field, count if frequency >= SAME_FIELDS * len(stems) else 0)


def prefix_patterns(stems: Sequence[str]) -> Iterator[Pattern]:
    """Yield patterns of a name's first fields: the first one alone, the first two, and so on."""
    fields = Fields.of(stems)
    for more in range(fields.count - 1):
        yield Pattern(f"^({fields.field}{f'{fields.separator}{fields.field}' * more}){fields.separator}")


def group_patterns(stems: Sequence[str]) -> Iterator[Pattern]:
    """Yield patterns that may group pictures of one part: all fields but the last ones, each single field, and close numbers."""
    fields = Fields.of(stems)
    for last in range(1, fields.count):
        yield Pattern(f"^(.+){f'{fields.separator}{fields.field}' * last}$")
    for number in range(fields.count if fields.count > 1 else 0):
        yield Pattern(f"^{f'{fields.field}{fields.separator}' * number}({fields.field})")
    for digits in CUT_DIGITS:
        yield Pattern(r"(\d+)" + r"\d" * digits + "$")


def find_numbered_series(stems: Sequence[str]) -> Pattern | None:
    """Return the pattern of names that consist of a part's name and a view, where the same few views recur with every part; else None."""
    fields = Fields.of(stems)
    if fields.count < 2:
        return None
    pattern = Pattern(f"^(.+){fields.separator}{fields.field}$")
    sizes = np.bincount(pattern.labels(stems))
    views = {re.findall(fields.field, stem)[-1] for stem in stems if re.search(pattern.expression, stem)}
    is_series = (
        len(sizes) >= MIN_GROUPS
        and 2 <= len(views) <= MAX_VIEWS
        and sizes[sizes >= 2].sum() >= MIN_GROUPED * len(stems)
        and np.median(sizes) >= MIN_SIZE
    )
    return pattern if is_series else None
