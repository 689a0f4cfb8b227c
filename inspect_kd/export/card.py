"""The artifact card: everything that a line-side program needs to use an artifact, stored in its file as JSON.

Imports neither torch nor a runtime: the card is read on the line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from inspect_kd import strict_json
from inspect_kd.calibrate import POOLED, Calibration
from inspect_kd.datasets.presentation import Presentations
from inspect_kd.datasets.view import View
from inspect_kd.errors import BadInput

SCHEMA = 1
KEY = "inspect_kd"
"""Key of the metadata entry that holds the card."""
MAX_CARD_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactCard:
    """What an artifact's file says about the artifact; `dump` writes it as JSON, `parse` reads and checks it."""

    name: str
    target: str
    """The file `to_<target>.py` that made the artifact."""
    size: int
    """Side of the square input in pixels."""
    resize: str
    """Identifier of the resize method; a program with a different one must refuse the artifact."""
    tile: int | None = None
    """Side of a tile in pixels of the image; None: the whole image is resized. Used only where `presentations` is None."""
    overlap: float = 0.25
    """Share of a tile that overlaps its neighbour. Used only where `presentations` is None."""
    presentations: Presentations | None = None
    """The presentation of each category, where categories differ or parts are aligned; otherwise None."""
    categories: tuple[str, ...]
    calibration: Calibration
    bits: int | None = None
    """Significant bits of 16-bit images; None means all 16."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    recipe_digest: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Name and digest of the training data."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Licence of each pretrained weights file in the artifact, by name."""
    parity: Mapping[str, Any] = field(default_factory=dict)
    """Result of the verification (`verify.Parity`)."""
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

    @property
    def image_presentations(self) -> Presentations:
        """How images of each category become model input."""
        return self.presentations or Presentations.plain(View(size=self.size, tile=self.tile, overlap=self.overlap))

    def dump(self) -> str:
        content = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in ("calibration", "presentations")
        }
        if self.presentations is not None:
            content["presentations"] = self.presentations.to_json()
        return json.dumps({"schema": SCHEMA, **content, "calibration": self.calibration.to_json()}, sort_keys=True)

    @staticmethod
    def parse(text: str, where: str) -> ArtifactCard:
        """Parse a card and check every value, since the file may be hostile; `where` names the file in errors."""
        if len(text) > MAX_CARD_BYTES:
            raise BadInput(f"{where}: the artifact's card is {len(text)} bytes long; the limit is {MAX_CARD_BYTES}")
        try:
            content = strict_json.loads(text)
            schema = content.pop("schema")
            if type(schema) is not int or schema != SCHEMA:
                raise BadInput(
                    f"{where}: artifact of schema {schema}; this program reads schema {SCHEMA}: update inspect-kd"
                )
            content["calibration"] = Calibration.from_json(content["calibration"])
            if not isinstance(content["categories"], list):
                raise TypeError("categories that are no list")
            content["categories"] = tuple(content["categories"])
            if "presentations" in content:
                content["presentations"] = Presentations.from_json(content["presentations"], int(content["size"]))
            card = ArtifactCard(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{where}: the artifact's card is damaged ({type(error).__name__})") from error
        except BadInput as error:
            raise BadInput(f"{where}: {error}" if not str(error).startswith(where) else str(error)) from error
        card._check_types(where)
        if POOLED in card.categories:
            raise BadInput(f"{where}: a category called '{POOLED}', which stands for all categories together")
        if card.size is None or not 1 <= card.size <= 4096:
            raise BadInput(f"{where}: impossible input size {card.size!r}")
        if card.presentations is not None and set(card.presentations.by_category) != set(card.categories):
            raise BadInput(f"{where}: its presentations are not those of its categories")
        if card.tile is not None and not card.size <= 2 * card.tile <= 2**17:
            raise BadInput(f"{where}: impossible tile {card.tile!r}")
        if not 0 <= card.overlap <= 0.75:
            raise BadInput(f"{where}: impossible overlap {card.overlap!r}")
        if card.bits is not None and not 1 <= card.bits <= 16:
            raise BadInput(f"{where}: impossible depth of pixels {card.bits!r}")
        return card

    def _check_types(self, where: str) -> None:
        """Check the fields' types, which dataclasses do not enforce: a wrong type would fail later, on the line."""
        texts = (self.name, self.target, self.resize, self.recipe_digest, self.created, *self.categories)
        tables = (self.recipe, self.data, self.licences, self.parity, self.versions)
        invalid = [
            *(text for text in texts if not (isinstance(text, str) and text.isprintable())),
            *(number for number in (self.size, self.tile, self.bits) if type(number) not in (int, type(None))),
            *(table for table in tables if not isinstance(table, dict)),
            *([self.overlap] if type(self.overlap) not in (int, float) else []),
        ]
        if invalid:
            raise BadInput(f"{where}: the artifact's card is damaged ({invalid[0]!r:.80})")


def card_facts(card: ArtifactCard) -> dict[str, Any]:
    """Return the card as a dict without the long lists of scores, for display and `--json`."""
    content = asdict(replace(card, presentations=None))
    if card.presentations is None:
        del content["presentations"]
    else:
        content["presentations"] = card.presentations.summary()
    content["calibration"] = {name: asdict(limits) for name, limits in card.calibration.limits.items()}
    return content
