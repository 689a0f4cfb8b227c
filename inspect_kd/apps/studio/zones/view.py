"""HTML of the Zones tab. Zones are data: the page's script sets them as text, and they reach it as JSON in an attribute."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from inspect_kd.apps.studio.train.texts import PHASES
from inspect_kd.apps.studio.zones import texts
from inspect_kd.apps.studio.zones.export import ZoneExport
from inspect_kd.datasets.zones import TOLERANCE

SCRIPTS = ("model.js", "drawing.js", "list.js", "editor.js")
"""Joined in this order into one function, so that they share their names with each other, and with nothing else."""


def script() -> str:
    """The script of the editor."""
    folder = files("inspect_kd.apps.studio.zones")
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)


def editor() -> str:
    """The empty editor, which the script fills."""
    low, high = TOLERANCE
    return (
        f'<div class="zones" data-texts="{_attribute(texts.SCRIPT)}" data-low="{low:g}" data-high="{high:g}">'
        f'<p class="zones-message" role="alert"></p><div class="empty"><span>{texts.CHOOSE}</span></div>'
        f'<div class="zones-bench" hidden><div class="zones-left">{_canvas()}</div>'
        f'<div class="zones-right">{_buttons()}</div></div></div>'
    )


def _canvas() -> str:
    keys = "".join(f"<div><dt><kbd>{key}</kbd></dt><dd>{meaning}</dd></div>" for key, meaning in texts.KEYS)
    return (
        f'<div class="zones-canvas" tabindex="0" role="application" aria-label="{texts.CANVAS}" '
        'aria-describedby="zones-keys"></div>'
        '<div class="zones-below"><span class="zones-about soft"></span>'
        '<span class="zones-where" role="status" aria-live="polite"></span></div>'
        '<p class="zones-check" role="status"></p>'
        f'<details class="zones-help"><summary>{texts.KEYS_HEADING}</summary><dl id="zones-keys">{keys}</dl></details>'
    )


def _buttons() -> str:
    tools = (("new", texts.NEW), ("close", texts.CLOSE), ("undo", texts.UNDO), ("redo", texts.REDO))
    return (
        f'<div class="zones-tools">{"".join(_button(name, text) for name, text in tools)}</div>'
        '<p class="zones-note" role="alert"></p>'
        f'<h2>{texts.ZONES}</h2><ol class="zones-list" aria-label="{texts.ZONES}"></ol>'
        '<p class="zones-others soft"></p><p class="zones-labels soft"></p>'
        f'<div class="zones-files">{_button("save", texts.SAVE)}{_button("load", texts.LOAD)}'
        '<input type="file" accept=".yaml,.yml" hidden></div>'
        f'<div class="zones-make">{_button("make", texts.MAKE)}<p class="soft">{texts.MAKE_WHY}</p></div>'
        f'<details><summary>{texts.BY_HAND}</summary><pre class="zones-commands"></pre></details>'
    )


def _button(name: str, text: str) -> str:
    return f'<button type="button" data-do="{name}">{text}</button>'


def answer(content: Mapping[str, Any], serial: int) -> str:
    """An answer to the script, which takes it from the attribute. The serial makes two equal answers differ."""
    return f'<div hidden data-serial="{serial}" data-answer="{_attribute(content)}"></div>'


def _attribute(content: Any) -> str:
    return escape(json.dumps(content))


def export_progress(export: ZoneExport, folder: Path) -> str:
    """The progress of an export, its artifact with how to use it, or the reason why there is none."""
    if export.error:
        return f'<p class="bad" role="alert">{escape(texts.NOT_MADE.format(reason=export.error))}</p>'
    if export.artifact is None:
        phase = PHASES.get(export.phase, export.phase) or texts.STARTING
        text = texts.MAKING.format(phase=phase, done=export.done, total=export.total) if export.total else phase
        share = 100 * export.done / export.total if export.total else 0
        return (
            f'<div class="progress" role="progressbar" aria-label="{escape(phase)}" aria-valuemin="0" aria-valuemax="100" '
            f'aria-valuenow="{share:.0f}"><span style="width:{share:.1f}%"></span></div><p class="soft" role="status">{escape(text)}</p>'
        )
    path = folder / export.artifact.name
    thresholds = "".join(f"<li>{escape(line)}</li>" for line in export.thresholds)
    quoted = escape(shlex.quote(str(path)))
    return (
        f'<p class="good" role="status">{escape(texts.MADE.format(artifact=path))}</p><ul>{thresholds}</ul>'
        f"<p>{texts.MADE_NEXT}</p><pre>inspect-kd ui {quoted}\ninspect-kd predict {quoted} IMAGES…</pre>"
    )


def stopped() -> str:
    """What a stopped export leaves: nothing."""
    return f'<p class="soft" role="status">{texts.STOPPED}</p>'
