"""Start and stop the Studio: loopback unless told, no request to outside hosts, nothing left behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inspect_kd.apps.studio.settings import Settings
from inspect_kd.errors import EnvironmentFault

LONGEST_QUEUE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """Where the Studio listens, and who may come in."""

    host: str = "127.0.0.1"
    port: int | None = None
    """None: the first free one from 7860 on."""
    auth: tuple[tuple[str, str], ...] = ()
    root_path: str | None = None


@contextmanager
def running(settings: Settings, door: Door | None = None) -> Iterator[str]:
    """The Studio for the time of a block; gives its address."""
    door = door or Door()
    received = Path(tempfile.mkdtemp(prefix="inspect-kd-received-"))
    # Gradio reads these when it is imported or when a component is made.
    os.environ |= {
        "GRADIO_TEMP_DIR": str(received),
        "GRADIO_EXAMPLES_CACHE": str(received / "examples"),
        "GRADIO_ANALYTICS_ENABLED": "False",
    }
    from inspect_kd.apps.studio.app import build
    from inspect_kd.apps.studio.theme import STYLE, head, theme

    page, studio = build(settings, received)
    try:
        try:
            _, address, _ = page.queue(max_size=LONGEST_QUEUE).launch(
                server_name=door.host,
                server_port=door.port,
                auth=list(door.auth) or None,
                root_path=door.root_path,
                max_file_size=settings.max_upload_mb * 2**20,
                allowed_paths=[],
                ssr_mode=False,
                share=False,
                quiet=True,
                run_history=False,
                footer_links=[],
                prevent_thread_lock=True,
                theme=theme(),
                css_paths=[STYLE],
                head=head(),
            )
        except OSError as error:
            raise EnvironmentFault(
                f"port {door.port} on {door.host} is not free: choose another with --port"
            ) from error
        yield address
    finally:
        page.close(verbose=False)
        studio.desks.close()
        shutil.rmtree(received, ignore_errors=True)
