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
"""Most categories whose reference picture is shown."""


def presentation_section(card: ArtifactCard) -> str:
    """How the parts of each category are presented to the model."""
    presentations = card.image_presentations
    presented = dict(presentations.by_category)
    if presentations.default is not None:
        presented[texts.ALL_CATEGORIES] = presentations.default
    rows = ((name, *_cells(each)) for name, each in presented.items())
    details = "".join(_reference(name, each) for name, each in list(presented.items())[:MAX_PICTURES])
    return (
        f"<h3>{texts.CARD_PRESENTATION}</h3><p>{texts.PRESENTATION_MEANING}</p>"
        f'<div class="scroll">{table(texts.PRESENTATION_COLUMNS, rows, classes="facts")}</div>{details}'
    )


def tiles_of(card: ArtifactCard) -> str:
    """Tiles in a few words, for the card's boxes; empty without tiles."""
    presentations = card.image_presentations
    tiles = {each.view.tile for each in (*presentations.by_category.values(), presentations.default) if each}
    sides = sorted(tile for tile in tiles if tile is not None)
    return texts.TILE_TILED.format(tile=" / ".join(map(str, sides))) if sides else ""


def _cells(presentation: Presentation) -> tuple[str, str, str]:
    alignment, tile = presentation.alignment, presentation.view.tile
    frame = texts.FRAME_SIZE.format(width=alignment.frame[0], height=alignment.frame[1]) if alignment else "–"
    return (
        alignment.method if alignment else texts.NOT_ALIGNED,
        frame,
        texts.TILE_SIDE.format(tile=tile) if tile else texts.NO_TILES,
    )


def _reference(name: str, presentation: Presentation) -> str:
    """The reference picture and the reasons; empty without both."""
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in presentation.reasons)
    picture = ""
    if presentation.alignment is not None:
        content = base64.b64encode(encode_image(presentation.alignment.reference.grey, ".png")).decode()
        alt = escape(texts.ALT_REFERENCE.format(category=name))
        picture = f'<img src="data:image/png;base64,{content}" alt="{alt}">'
    if not reasons and not picture:
        return ""
    return f'<div class="reference">{picture}<div><b>{escape(name)}</b><ul>{reasons}</ul></div></div>'
