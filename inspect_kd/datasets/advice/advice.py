"""Advice: one thing that the sound pictures of a category call for, with its number, a picture and a remedy."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inspect_kd.types import ImageU8

Topic = Literal["pose", "background", "scale", "light", "blur", "few parts", "products", "series"]
TOPICS: tuple[Topic, ...] = ("pose", "background", "scale", "light", "blur", "few parts", "products", "series")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Advice:
    """What was measured on the sound pictures of a category, and what to do about it."""

    topic: Topic
    category: str
    number: float
    measure: str
    """What the number is."""
    text: str
    """What was found, in one sentence without a full stop."""
    remedy: str
    """What to do, in one sentence without a full stop."""
    changes: tuple[str, ...] | None = None
    """Options of `inspect-kd train` that are the remedy or follow it; None if training does it by itself or no option helps."""
    done: bool = False
    """Whether training does what is needed by itself."""
    picture: ImageU8 | None = None
    """A small contact sheet of pictures that show it."""
    files: tuple[Path, ...] = ()
    """Pictures that call for it; empty if all do."""

    def command(self, data: str) -> str | None:
        """The command line of the remedy; `data` names the data set as for `--data`."""
        if self.changes is None:
            return None
        return shlex.join(["inspect-kd", "train", "--data", data, *self.changes])

    def describe(self) -> str:
        """Say in one line what was found and what to do, without the command."""
        return f"{self.category}: {self.text}; {self.remedy}"

    def to_json(self, data: str) -> dict[str, Any]:
        """Everything but the picture, ready for `json.dumps`."""
        return {
            "topic": self.topic,
            "category": self.category,
            "number": round(self.number, 4),
            "measure": self.measure,
            "text": self.text,
            "remedy": self.remedy,
            "command": self.command(data),
            "done": self.done,
            "files": [str(file) for file in self.files],
        }
