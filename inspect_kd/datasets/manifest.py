"""Manifests of data sets: their source, licence and layout on disk."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from inspect_kd import zoo
from inspect_kd.config import Name, StrictModel, fill, read_yaml


def compile_group(pattern: str) -> re.Pattern[str]:
    """Compile the regular expression of a group; raises ValueError if it is invalid or too large."""
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
    """Instructions for a person."""
    drawn: int | None = None
    """Seed of the drawn data set."""

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
    """Folder below $INSPECT_KD_DATA, or an absolute one; default: the name."""
    categories: tuple[str, ...] = ()
    """The categories of the complete data set."""
    group: str | None = None
    """Regular expression over file names; its first group identifies the physical part in the image."""
    bits: int | None = Field(None, ge=1, le=16)
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


def load_manifest(name: str) -> Manifest:
    """Load the manifest for a name or a path."""
    path = zoo.find("datasets", name)
    return fill(Manifest, read_yaml(path), where=str(path))
