"""The artifact's card as HTML: what it is, what its thresholds promise, what is inside, what proves it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from inspect_kd.apps.studio import texts
from inspect_kd.calibrate import POOLED
from inspect_kd.errors import printable
from inspect_kd.export.card import ArtifactCard
from inspect_kd.inspector import Inspector
from inspect_kd.signing import signature_path


def card_page(inspector: Inspector, path: Path) -> str:
    card = inspector.card
    return (
        f'<div class="card-page">{_tiles(card)}<div class="columns"><section>{_promise(card)}{_parity(card)}</section>'
        f"<section>{_file(inspector, path)}{_licences(card)}{_versions(card)}{_recipe(card)}</section></div></div>"
    )


def _tiles(card: ArtifactCard) -> str:
    pooled = card.calibration.limits[POOLED]
    tiled = texts.TILE_TILED.format(tile=card.tile) if card.tile else ""
    facts = [
        (card.name, texts.TILE_INPUT.format(target=card.target, size=card.size) + tiled),
        (texts.TILE_CATEGORIES.format(count=len(card.categories)), ", ".join(card.categories)),
        (f"≤ {100 * pooled.reject_promise:.1f} %", texts.TILE_PROMISE.format(n=pooled.n)),
        (str(card.parity.get("flips", "–")), texts.TILE_FLIPS.format(images=card.parity.get("images", "?"))),
    ]
    tiles = "".join(f"<div><b>{escape(str(fact))}</b><span>{escape(text)}</span></div>" for fact, text in facts)
    return f'<div class="tiles">{tiles}</div>'


def _promise(card: ArtifactCard) -> str:
    rows = [
        [
            texts.ALL_CATEGORIES if name == POOLED else name,
            limits.n,
            f"{limits.thresholds.reinspect:.3f}",
            f"{limits.thresholds.reject:.3f}",
            f"≤ {100 * limits.reinspect_promise:.1f} %",
            f"≤ {100 * limits.reject_promise:.1f} %",
        ]
        for name, limits in card.calibration.limits.items()
    ]
    sentence = escape(card.calibration.limits[POOLED].describe())
    return f"<h3>{texts.CARD_PROMISE}</h3><p>{sentence}</p>{_table(texts.CARD_COLUMNS, rows)}"


def _parity(card: ArtifactCard) -> str:
    rows = [[name, _plain(card.parity[key])] for key, name in texts.PARITY_NAMES.items() if key in card.parity]
    return f"<h3>{texts.CARD_PARITY}</h3>{_table((), rows)}"


def _file(inspector: Inspector, path: Path) -> str:
    card = inspector.card
    rows = [
        printable(path.name),
        f"{path.stat().st_size / 1e6:.2f} MB",
        inspector.digest,
        texts.SIGNED if signature_path(path).is_file() else texts.UNSIGNED,
        card.created or "–",
        card.data.get("name", "–"),
        card.recipe_digest or "–",
    ]
    return f"<h3>{texts.CARD_FILE}</h3>{_table((), zip(texts.CARD_FILE_ROWS, rows, strict=True))}"


def _licences(card: ArtifactCard) -> str:
    rows = [[name, licence] for name, licence in card.licences.items()] or [["–", "–"]]
    return f"<h3>{texts.CARD_LICENCES}</h3>{_table((), rows)}"


def _versions(card: ArtifactCard) -> str:
    return f"<h3>{texts.CARD_VERSIONS}</h3>{_table((), [[name, version] for name, version in card.versions.items()])}"


def _recipe(card: ArtifactCard) -> str:
    lines = "\n".join(_lines(card.recipe))
    about, name = escape(str(card.recipe.get("about", ""))), escape(str(card.recipe.get("name", "")))
    return (
        f"<h3>{texts.CARD_RECIPE}</h3><p>{about}</p>"
        f'<details><summary>{name}</summary><pre tabindex="0">{escape(lines)}</pre></details>'
    )


def _lines(content: Any, indent: str = "") -> Iterable[str]:
    """As YAML would show it, without YAML."""
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {value}"


def _plain(value: Any) -> str:
    return (
        ", ".join(map(str, value))
        if isinstance(value, list)
        else f"{value:.3g}"
        if isinstance(value, float)
        else str(value)
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    top = f"<thead><tr>{titles}</tr></thead>" if titles else ""
    return (
        f'<div class="scroll"><table class="facts{"" if titles else " pairs"}">{top}<tbody>{body}</tbody></table></div>'
    )
