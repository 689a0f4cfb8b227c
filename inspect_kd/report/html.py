"""HTML for reports and the Studio: whole documents, tables, escaped text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from importlib.resources import files

STYLE_FILE = "style.css"


class Html(str):
    """Markup, inserted as it is. The functions here escape every other value."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """A table cell with its own CSS classes."""

    content: object
    classes: str


def escaped(value: object) -> Html:
    """Return markup as it is and anything else as escaped text."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def document(*, title: str, heading: str, subtitle: str, body: str, style: str = "") -> str:
    """Return a self-contained page with the report's style. `subtitle` and `body` are markup, `style` is further CSS."""
    sheet = (files("inspect_kd.report") / STYLE_FILE).read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{sheet}{style}</style></head>\n"
        f"<body><header><h1>{escape(heading)}</h1>{subtitle}</header>\n<main>{body}</main></body></html>\n"
    )


def table(
    head: Iterable[object],
    rows: Iterable[Iterable[object]],
    *,
    classes: str = "",
    caption: object = "",
    row_headers: bool = False,
    last_row: str = "",
) -> Html:
    """Return a table whose cells are escaped unless they are `Html`. `last_row` is a class of that row, such as `mean`."""
    lines = [_row(row, has_header=row_headers) for row in rows]
    if last_row and lines:
        lines[-1] = lines[-1].replace("<tr>", f'<tr class="{last_row}">', 1)
    titles = "".join(f'<th scope="col">{escaped(cell)}</th>' if cell != "" else "<td></td>" for cell in head)
    opening = f'<table class="{classes}">' if classes else "<table>"
    top = f"<caption>{escaped(caption)}</caption>" if caption else ""
    top += f"<thead><tr>{titles}</tr></thead>" if titles else ""
    return Html(f"{opening}{top}<tbody>{''.join(lines)}</tbody></table>")


def _row(cells: Iterable[object], *, has_header: bool) -> str:
    """Return a table row. `has_header`: whether the first cell names the row."""
    first, *others = cells
    first_cell = f'<th scope="row">{escaped(first)}</th>' if has_header else _cell(first)
    return f"<tr>{first_cell}{''.join(map(_cell, others))}</tr>"


def _cell(value: object) -> str:
    if isinstance(value, Cell):
        return f'<td class="{value.classes}">{escaped(value.content)}</td>'
    return f"<td>{escaped(value)}</td>"


def card_table(
    head: Iterable[object], rows: Iterable[Iterable[object]], *, classes: str = "", last_row: str = ""
) -> Html:
    """Return a table in a framed box, which scrolls sideways if the table is too wide."""
    return Html(f'<div class="card scroll">{table(head, rows, classes=classes, last_row=last_row)}</div>')


def with_not_found(parts: int, not_found: int) -> str:
    """Write a number of parts, and how many of them were not found in their images."""
    return f"{parts}, {not_found} of them not found" if not_found else str(parts)


def figure_boxes(figures: Iterable[tuple[object, object]]) -> Html:
    """Return large figures in boxes side by side, from pairs of a value and its name."""
    cells = (f'<div class="tile"><b>{escaped(value)}</b><span>{escaped(name)}</span></div>' for value, name in figures)
    return Html(f'<div class="tiles">{"".join(cells)}</div>')
