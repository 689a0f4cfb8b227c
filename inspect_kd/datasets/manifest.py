"""Manifests of data sets: their source, licence and layout on disk."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from inspect_kd import zoo
from inspect_kd.config import Name, fill, read_yaml
from inspect_kd.strict_model import StrictModel


def compile_group(pattern: str) -> re.Pattern[str]:
    """Compile a regular expression that finds the group in a file name; raise ValueError if it is invalid or too large."""
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        shown = pattern if len(pattern) <= 80 else f"{pattern[:80]}…"
        raise ValueError(f"'{shown}' is not a usable regular expression ({error})") from error


class Licence(StrictModel):
    """The licence of a data set."""

    name: str
    url: str = ""
    commercial: bool
    """True only if the licence allows commercial use of models trained on the data."""


class Archive(StrictModel):
    """A file to download, with its digest."""

    url: str = Field(pattern=r"^https?://")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int | None = Field(None, gt=0)


class DownloadSource(StrictModel):
    """How to get the images; exactly one field is set."""

    anomalib: str | None = None
    """Name of anomalib's data module that downloads the images."""
    archives: tuple[Archive, ...] = ()
    by_hand: str | None = None
    """Instructions for a person who must download the images."""
    drawn: int | None = None
    """Seed of a data set that this program draws itself."""

    @model_validator(mode="after")
    def _exactly_one(self) -> DownloadSource:
        given = [self.anomalib is not None, bool(self.archives), self.by_hand is not None, self.drawn is not None]
        if sum(given) != 1:
            raise ValueError("set exactly one of anomalib, archives, by_hand, drawn")
        return self


class Manifest(StrictModel):
    """What a data set is and where it comes from."""

    name: Name
    title: str
    about: str = ""
    licence: Licence
    citation: str = ""
    homepage: str = ""
    layout: str | None = None
    root: str = ""
    """Folder below $INSPECT_KD_DATA, or an absolute path; empty: the folder has the data set's name."""
    categories: tuple[str, ...] = ()
    """The categories of the complete data set."""
    group: str | None = None
    """Regular expression over file names; its first group identifies the physical part in the image."""
    bits: int | None = Field(None, ge=1, le=16)
    """Significant bits of 16-bit images; None: all 16."""
    source: DownloadSource

    @field_validator("root")
    @classmethod
    def _stays_below(cls, value: str) -> str:
        # An absolute path is explicit; a relative one must not leave the data folder unnoticed.
        if ".." in Path(value).parts or "\0" in value or (value and Path(value) == Path()):
            raise ValueError("leads out of the folder of the data sets; write an absolute path if that is intended")
        if value and not Path(value).name:
            raise ValueError("is a whole disk; name a folder on it")
        if len(value.encode()) > 200:
            raise ValueError("is longer than 200 bytes; shorten it")
        return value

    @field_validator("group")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            compile_group(value)
        return value

    def folder(self) -> Path:
        """Return the folder of the images."""
        return zoo.data_home() / (self.root or self.name)

    def is_downloaded(self) -> bool:
        """Return whether the images are on this machine; an empty folder, such as a mount point, does not count."""
        folder = self.folder()
        return folder.is_dir() and any(folder.iterdir())

    def download_size(self) -> int | None:
        """Return the number of bytes to download; None if it is unknown."""
        sizes = [archive.size for archive in self.source.archives]
        return sum(size for size in sizes if size) if sizes and all(sizes) else None

    def describe_download(self) -> list[str]:
        """Describe, a line each, what a person must know before the download: licence, commercial use, size, folder."""
        size = self.download_size()
        lines = [
            f"{self.title}: {self.licence.name} {self.licence.url}".rstrip(),
            "Commercial use is allowed."
            if self.licence.commercial
            else "NOT for commercial use: do not ship models trained on it.",
            f"size: {'unknown' if size is None else format_size(size)}; folder: {self.folder()}",
        ]
        return [*lines, f"cite: {self.citation}"] if self.citation else lines

    def summarise_download(self) -> dict[str, str | bool | int | None]:
        """Return what a person must know before the download, like `describe_download`, but for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "licence": self.licence.name,
            "commercial": self.licence.commercial,
            "size": self.download_size(),
            "folder": str(self.folder()),
        }


def format_size(size: int) -> str:
    """Format a number of bytes for a person: 5.3 GB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def load_manifest(name: str) -> Manifest:
    """Load the manifest for a name or a path."""
    path = zoo.find("datasets", name)
    return fill(Manifest, read_yaml(path), where=str(path))
