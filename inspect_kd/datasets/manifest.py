"""A manifest says what a data set is: where it comes from, under which licence, how it lies on disk."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from inspect_kd import zoo
from inspect_kd.config import Name, Strict, fill, read_yaml


def compile_group(pattern: str) -> re.Pattern[str]:
    """The regular expression of a group; a ValueError where it is none, or more than Python can compile."""
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        shown = pattern if len(pattern) <= 80 else f"{pattern[:80]}…"
        raise ValueError(f"'{shown}' is no regular expression that can be used ({error})") from error


class Licence(Strict):
    name: str
    url: str = ""
    commercial: bool
    """May what is trained on it be used in a factory? False where the licence does not say so."""


class Archive(Strict):
    url: str = Field(pattern=r"^https?://")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int | None = Field(None, gt=0)


class DownloadSource(Strict):
    """Exactly one way to the images."""

    anomalib: str | None = None
    """Name of anomalib's data module, which does the download."""
    archives: tuple[Archive, ...] = ()
    by_hand: str | None = None
    """What a person has to do."""
    drawn: int | None = None
    """Seed of the drawn data set."""

    @model_validator(mode="after")
    def one(self) -> DownloadSource:
        given = [self.anomalib is not None, bool(self.archives), self.by_hand is not None, self.drawn is not None]
        if sum(given) != 1:
            raise ValueError("exactly one of anomalib, archives, by_hand, drawn")
        return self


class Manifest(Strict):
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
    """Those that the complete data set has."""
    group: str | None = None
    """Regular expression over file names: its first group names the part that is shown."""
    bits: int | None = Field(None, ge=1, le=16)
    source: DownloadSource

    @field_validator("root")
    @classmethod
    def stays_below(cls, value: str) -> str:
        # An absolute folder is somebody's decision; one that climbs out of the data's home is a trap.
        if ".." in Path(value).parts or "\0" in value or (value and Path(value) == Path()):
            raise ValueError("leads out of the folder of the data sets; write an absolute path if that is meant")
        if value and not Path(value).name:
            raise ValueError("is a whole disk; name a folder on it")
        if len(value.encode()) > 200:
            raise ValueError("longer than a folder's name may be")
        return value

    @field_validator("group")
    @classmethod
    def compiles(cls, value: str | None) -> str | None:
        if value is not None:
            compile_group(value)
        return value

    def folder(self) -> Path:
        return zoo.data_home() / (self.root or self.name)


def load_manifest(name: str) -> Manifest:
    path = zoo.find("datasets", name)
    return fill(Manifest, read_yaml(path), where=str(path))
