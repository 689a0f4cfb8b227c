"""The artifact card as HTML: thresholds with the bounds that they promise, verification, licences, versions, recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.artifact.presentation_section import describe_tiles, presentation_section
from inspect_kd.calibrate import POOLED
from inspect_kd.errors import printable
from inspect_kd.export.card import ArtifactCard
from inspect_kd.inspector import Inspector
from inspect_kd.report.html import Html, table, with_not_found
from inspect_kd.signing import signature_path


def card_page(inspector: Inspector, path: Path) -> str:
    """The card of one artifact, and the facts of its file."""
    card = inspector.card
    return (
        f'<div class="card-page">{_key_figures(card)}<div class="columns"><section>{_promise(card)}{presentation_section(card)}'
        f"{_verification(card)}</section>"
        f"<section>{_file(inspector, path)}{_licences(card)}{_versions(card)}{_recipe(card)}</section></div></div>"
    )


def _key_figures(card: ArtifactCard) -> str:
    """The boxes with the most important facts, above the tables."""
    pooled = card.calibration.limits[POOLED]
    facts = [
        (card.name, texts.BOX_INPUT.format(target=card.target, size=card.size) + describe_tiles(card)),
        (texts.BOX_CATEGORIES.format(count=len(card.categories)), ", ".join(card.categories)),
        (f"≤ {100 * pooled.reject_promise:.1f} %", texts.BOX_PROMISE.format(n=pooled.n)),
        (str(card.parity.get("flips", "–")), texts.BOX_FLIPS.format(images=card.parity.get("images", "?"))),
    ]
    boxes = "".join(f"<div><b>{escape(str(value))}</b><span>{escape(text)}</span></div>" for value, text in facts)
    return f'<div class="tiles">{boxes}</div>'


def _promise(card: ArtifactCard) -> str:
    """Thresholds of each category, and upper bounds on the shares of new sound parts that exceed them."""
    rows = [
        [
            texts.ALL_CATEGORIES if name == POOLED else name,
            with_not_found(limits.n, card.calibration.count_not_found(name)),
            f"{limits.thresholds.reinspect:.3f}",
            f"{limits.thresholds.reject:.3f}",
            f"≤ {100 * limits.reinspect_promise:.1f} %",
            f"≤ {100 * limits.reject_promise:.1f} %",
        ]
        for name, limits in card.calibration.limits.items()
    ]
    sentence = escape(card.calibration.describe())
    return f"<h3>{texts.CARD_PROMISE}</h3><p>{sentence}</p>{_fact_table(rows, texts.CARD_COLUMNS)}"


def _verification(card: ArtifactCard) -> str:
    rows = [[name, _format_value(card.parity[key])] for key, name in texts.PARITY_NAMES.items() if key in card.parity]
    return f"<h3>{texts.CARD_PARITY}</h3>{_fact_table(rows)}"


def _file(inspector: Inspector, path: Path) -> str:
    card = inspector.card
    try:
        size = f"{path.stat().st_size / 1e6:.2f} MB"
    except OSError:  # it was moved or removed after the Studio had opened it
        size = texts.CARD_FILE_GONE
    values = [
        printable(path.name),
        size,
        inspector.digest,
        texts.SIGNED if signature_path(path).is_file() else texts.UNSIGNED,
        card.created or "–",
        card.data.get("name", "–"),
        card.recipe_digest or "–",
    ]
    return f"<h3>{texts.CARD_FILE}</h3>{_fact_table(zip(texts.CARD_FILE_ROWS, values, strict=True))}"


def _licences(card: ArtifactCard) -> str:
    rows = list(card.licences.items()) or [("–", "–")]
    return f"<h3>{texts.CARD_LICENCES}</h3>{_fact_table(rows)}"


def _versions(card: ArtifactCard) -> str:
    return f"<h3>{texts.CARD_VERSIONS}</h3>{_fact_table(card.versions.items())}"


def _recipe(card: ArtifactCard) -> str:
    lines = "\n".join(_yaml_lines(card.recipe))
    about, name = escape(str(card.recipe.get("about", ""))), escape(str(card.recipe.get("name", "")))
    return (
        f"<h3>{texts.CARD_RECIPE}</h3><p>{about}</p>"
        f'<details><summary>{name}</summary><pre tabindex="0">{escape(lines)}</pre></details>'
    )


def _yaml_lines(content: Any, indent: str = "") -> Iterable[str]:
    """Write nested dictionaries as YAML does."""
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _yaml_lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {value}"


def _format_value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _fact_table(rows: Iterable[Iterable[Any]], header: Sequence[str] = ()) -> Html:
    """A table; without a header its rows are pairs of name and value."""
    return Html(f'<div class="scroll">{table(header, rows, classes="facts" if header else "facts pairs")}</div>')
