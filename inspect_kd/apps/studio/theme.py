"""The Studio's theme, light and dark, readable at arm's length; fonts and files come from this host only."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import gradio as gr

_HERE = Path(str(files("inspect_kd.apps.studio")))
STYLES, SCRIPT = [_HERE / "studio.css", _HERE / "zones" / "zones.css"], _HERE / "studio.js"
SANS = ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Noto Sans", "sans-serif")
MONO = ("ui-monospace", "Cascadia Mono", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """Return a theme that sets Gradio's variables to the colours of studio.css."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.slate,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_sm,
        spacing_size=gr.themes.sizes.spacing_sm,
        text_size=gr.themes.sizes.text_md,
        font=SANS,
        font_mono=MONO,
    ).set(
        body_background_fill="var(--ground)",
        body_background_fill_dark="var(--ground)",
        body_text_color="var(--ink)",
        body_text_color_dark="var(--ink)",
        body_text_color_subdued="var(--soft)",
        body_text_color_subdued_dark="var(--soft)",
        background_fill_primary="var(--panel)",
        background_fill_primary_dark="var(--panel)",
        background_fill_secondary="var(--ground)",
        background_fill_secondary_dark="var(--ground)",
        border_color_primary="var(--line)",
        border_color_primary_dark="var(--line)",
        border_color_accent="var(--accent)",
        border_color_accent_dark="var(--accent)",
        color_accent="var(--accent)",
        color_accent_soft="var(--wash)",
        color_accent_soft_dark="var(--wash)",
        link_text_color="var(--accent)",
        link_text_color_dark="var(--accent)",
        block_background_fill="var(--panel)",
        block_background_fill_dark="var(--panel)",
        block_border_color="var(--line)",
        block_border_color_dark="var(--line)",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_text_color="var(--soft)",
        block_label_text_color_dark="var(--soft)",
        block_title_text_color="var(--soft)",
        block_title_text_color_dark="var(--soft)",
        block_title_text_weight="500",
        block_shadow="none",
        input_background_fill="var(--field)",
        input_background_fill_dark="var(--field)",
        input_border_width="1px",
        input_border_color="var(--edge)",
        input_border_color_dark="var(--edge)",
        input_border_color_focus="var(--accent)",
        input_border_color_focus_dark="var(--accent)",
        slider_color="var(--accent)",
        slider_color_dark="var(--accent)",
        button_primary_background_fill="var(--accent)",
        button_primary_background_fill_dark="var(--accent)",
        button_primary_background_fill_hover="var(--accent-deep)",
        button_primary_background_fill_hover_dark="var(--accent-deep)",
        button_primary_text_color="var(--on-accent)",
        button_primary_text_color_dark="var(--on-accent)",
        button_secondary_background_fill="var(--panel)",
        button_secondary_background_fill_dark="var(--panel)",
        button_secondary_background_fill_hover="var(--wash)",
        button_secondary_background_fill_hover_dark="var(--wash)",
        button_secondary_border_color="var(--edge)",
        button_secondary_border_color_dark="var(--edge)",
        button_secondary_text_color="var(--ink)",
        button_secondary_text_color_dark="var(--ink)",
        button_cancel_background_fill="var(--panel)",
        button_cancel_background_fill_dark="var(--panel)",
        button_cancel_text_color="var(--ng)",
        button_cancel_text_color_dark="var(--ng)",
        button_cancel_border_color="var(--edge)",
        button_cancel_border_color_dark="var(--edge)",
        button_border_width="1px",
    )


def head() -> str:
    """Return the page's script as an inline element, so that the browser fetches nothing."""
    return f"<script>\n{SCRIPT.read_text(encoding='utf-8')}\n</script>"
