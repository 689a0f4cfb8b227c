"""The artifact card's section on alignment and tiles: what was chosen for each category, why, and the reference picture."""

from __future__ import annotations

import base64
from html import escape

from inspect_kd.apps.studio import texts
from inspect_kd.datasets.image_writer import encode_image
from inspect_kd.datasets.presentation import Presentation
from inspect_kd.export.card import ArtifactCard
from inspect_kd.report.html import table

MAX_PICTURES = 16
"""Largest number of categories whose reference picture is shown."""


def presentation_section(card: ArtifactCard) -> str:
    """The section as HTML: a table of the presentations, then the reference picture and the reasons of each category."""
    presentations = card.image_presentations
    by_name = dict(presentations.by_category)
    if presentations.default is not None:
        by_name[texts.ALL_CATEGORIES] = presentations.default
    rows = ((name, *_cells(each)) for name, each in by_name.items())
    details = "".join(
        _reference(name, each, with_picture=number < MAX_PICTURES)
        for number, (name, each) in enumerate(by_name.items())
    )
    return (
        f"<h3>{texts.CARD_PRESENTATION}</h3><p>{texts.PRESENTATION_MEANING}</p>"
        f'<div class="scroll">{table(texts.PRESENTATION_COLUMNS, rows, classes="facts")}</div>{details}'
    )


def describe_tiles(card: ArtifactCard) -> str:
    """The tiles' sides in a few words, appended to the model's input size; empty without tiles."""
    presentations = card.image_presentations
    tiles = {each.view.tile for each in (*presentations.by_category.values(), presentations.default) if each}
    sides = sorted(tile for tile in tiles if tile is not None)
    return texts.BOX_TILES.format(tile=" / ".join(map(str, sides))) if sides else ""


def _cells(presentation: Presentation) -> tuple[str, str, str]:
    """The row's cells after the category: alignment, frame, tiles."""
    alignment, tile = presentation.alignment, presentation.view.tile
    frame = texts.FRAME_SIZE.format(width=alignment.frame[0], height=alignment.frame[1]) if alignment else "–"
    return (
        alignment.method if alignment else texts.NOT_ALIGNED,
        frame,
        texts.TILE_SIDE.format(tile=tile) if tile else texts.NO_TILES,
    )


def _reference(name: str, presentation: Presentation, *, with_picture: bool) -> str:
    """The reference picture and the reasons for the presentation; empty if there are neither."""
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in presentation.reasons)
    picture = ""
    if with_picture and presentation.alignment is not None:
        content = base64.b64encode(encode_image(presentation.alignment.reference.grey, ".png")).decode()
        alt = escape(texts.ALT_REFERENCE.format(category=name))
        picture = f'<img src="data:image/png;base64,{content}" alt="{alt}">'
    if not reasons and not picture:
        return ""
    return f'<div class="reference">{picture}<div><b>{escape(name)}</b><ul>{reasons}</ul></div></div>'
