"""A run's report for the Studio: the page itself, and the pictures in it. Nothing but `report.html` in a run is read."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from inspect_kd.errors import BadInput
from inspect_kd.plain_file import open_plain_file

LARGEST = 64 << 20
MOST_PICTURES = 6


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
