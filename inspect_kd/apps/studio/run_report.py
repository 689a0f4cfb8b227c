"""A run's report for the Studio: the page itself, and the pictures in it. Nothing but `report.html` in a run is read."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from inspect_kd.errors import BadInput
from inspect_kd.plain_file import open_plain_file

LARGEST = 16 << 20
MOST_PICTURES = 6
_LOADING_TAG = re.compile(r"<(?=(?:link|meta|base|iframe|frame|object|embed|portal)\b)", re.IGNORECASE)


def read_report(folder: Path) -> str:
    """The page's text; links are not followed, whoever has put them there."""
    path = folder / "report.html"
    try:
        with open_plain_file(path, "report", follow_links=False) as file:
            content = file.read(LARGEST + 1)
    except (OSError, BadInput):
        raise BadInput(f"{folder.name} has no report yet") from None
    if len(content) > LARGEST:
        raise BadInput(f"the report of {folder.name} is larger than {LARGEST >> 20} MB: open the file itself")
    return content.decode("utf-8", errors="replace")


def without_loading_tags(page: str) -> str:
    """The page with tags that load, connect, redirect or nest a page turned into comments (`<!link …>` is one).

    Neither a sandbox nor a content security policy stops `<link rel=preconnect>`. Nothing is cut out, so that no tag can
    form from what is left around a gap.
    """
    return _LOADING_TAG.sub("<!", page)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A part and its heat, as the report shows them."""

    original: str
    heated: str
    """Both as data URIs."""
    caption: str


def pictures_of(page: str, most: int = MOST_PICTURES) -> list[Picture]:
    """The first pictures of a report."""
    reader = _Figures()
    # What html.parser cannot read ends the search: these pictures are a courtesy, the report itself opens all the same.
    with suppress(AssertionError, ValueError, RecursionError):
        reader.feed(page)
    return reader.pictures[:most]


class _Figures(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[Picture] = []
        self.images: list[str] = []
        self.words: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "figure":
            self.inside, self.images, self.words = True, [], []
        elif tag == "img" and self.inside:
            source = dict(attrs).get("src") or ""
            if source.startswith("data:image/"):  # a picture that asks another host is none
                self.images.append(source)

    def handle_data(self, data: str) -> None:
        if self.inside and data.strip():
            self.words.append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        if tag == "figure":
            if len(self.images) == 2:
                caption = " · ".join(self.words)
                self.pictures.append(Picture(original=self.images[0], heated=self.images[1], caption=caption))
            self.inside = False
