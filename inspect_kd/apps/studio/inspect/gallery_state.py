"""What the gallery of one session shows: filter, order, page and the selected part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspect_kd.apps.studio.inspect.parts import Part
from inspect_kd.types import Decision

if TYPE_CHECKING:
    from inspect_kd.apps.studio.session import Session

PAGE_SIZE = 60
"""Cards on a page: with five hundred pictures on one page, a browser grows slow."""
FILTERS = ("all", *map(str, (Decision.NG, Decision.REINSPECT, Decision.OK)), "marked", "wrong")
ORDERS = ("worst", "best", "arrival")


class GalleryState:
    """Filter, order, page and selected part of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.filter, self.order, self.page = "all", "worst", 0
        self.selected: int | None = None

    def reset(self) -> None:
        """Select nothing and show all parts; the order is kept."""
        self.selected, self.page, self.filter = None, 0, "all"

    def counts(self) -> dict[str, int]:
        """Number of parts that pass each filter."""
        parts = self.session.all_parts()
        return {name: sum(self._passes(part, name) for part in parts) for name in FILTERS}

    def filtered_parts(self) -> list[Part]:
        """The parts that pass the filter, sorted, on all pages."""
        parts = [part for part in self.session.all_parts() if self._passes(part, self.filter)]
        if self.order == "arrival":
            return parts
        # The part's number breaks ties, so that parts with equal scores keep their order.
        return sorted(parts, key=lambda part: (part.score if self.order == "best" else -part.score, part.number))

    def page_parts(self) -> list[Part]:
        """The parts on the present page; first go back to the last page if the present one no longer exists."""
        parts = self.filtered_parts()
        self.page = min(self.page, self._last_page(parts))
        return parts[self.page * PAGE_SIZE : (self.page + 1) * PAGE_SIZE]

    def set_filter(self, name: str) -> None:
        """Show the parts that pass a filter; an unknown name shows all."""
        self.filter, self.page = (name if name in FILTERS else "all"), 0

    def set_order(self, order: str) -> None:
        """Sort the parts in another order; an unknown name sorts the worst first."""
        self.order, self.page = (order if order in ORDERS else "worst"), 0

    def turn_page(self, by: int) -> None:
        """Move by a number of pages, at most to the first or last one."""
        self.page = min(self._last_page(self.filtered_parts()), max(0, self.page + by))

    def select(self, number: int) -> None:
        """Select a part by its number; unknown numbers are ignored."""
        if number in self.session.parts:
            self.selected = number

    def step(self, by: int) -> None:
        """Select the part `by` places further among those that pass the filter, and show its page."""
        numbers = [part.number for part in self.filtered_parts()]
        if not numbers:
            return
        index = numbers.index(self.selected) + by if self.selected in numbers else 0
        index = min(len(numbers) - 1, max(0, index))
        self.selected, self.page = numbers[index], index // PAGE_SIZE

    def selected_part(self) -> Part | None:
        """The selected part, if it still exists."""
        return self.session.parts.get(self.selected) if self.selected is not None else None

    @staticmethod
    def _last_page(parts: list[Part]) -> int:
        return max(0, (len(parts) - 1) // PAGE_SIZE)

    def _passes(self, part: Part, filter_name: str) -> bool:
        if filter_name == "all":
            return True
        if filter_name == "marked":
            return part.mark is not None
        if filter_name == "wrong":
            return part.is_wrong_call(self.session.thresholds)
        return str(self.session.thresholds.decide(part.score)) == filter_name
