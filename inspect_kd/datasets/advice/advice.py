"""Advice: one finding about the sound pictures of a category, with its measured number, a contact sheet and a remedy."""

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
    """What `number` measures, with its unit."""
    text: str
    """What was found, in one sentence without a full stop."""
    remedy: str
    """What to do, in one sentence without a full stop."""
    changes: tuple[str, ...] | None = None
    """Options of `inspect-kd train` for the training with or after the remedy; None if training applies it by itself or no option helps."""
    done: bool = False
    """Whether training applies the remedy by itself."""
    picture: ImageU8 | None = None
    """A small contact sheet of pictures that show what was found."""
    files: tuple[Path, ...] = ()
    """The pictures that the finding is about; empty if it is about all."""

    def command(self, data: str) -> str | None:
        """Return the command line of the remedy; `data` names the data set as for `--data`."""
        if self.changes is None:
            return None
        return shlex.join(["inspect-kd", "train", "--data", data, *self.changes])

    def describe(self) -> str:
        """Say in one line what was found and what to do, without the command."""
        return f"{self.category}: {self.text}; {self.remedy}"

    def to_json(self, data: str) -> dict[str, Any]:
        """Return everything but the picture, ready for `json.dumps`."""
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
