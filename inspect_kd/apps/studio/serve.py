"""Start and stop the Studio: loopback unless told, no request to outside hosts, nothing left behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.allowed_hosts import AllowedHosts
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.apps.studio.temporary_folder import TemporaryFolder
from inspect_kd.errors import EnvironmentFault

LONGEST_QUEUE = 32
MOST_STATES = 256
"""Sessions whose Gradio state is kept; a page that is open needs it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """Where the Studio listens, and who may come in."""

    host: str = "127.0.0.1"
    port: int | None = None
    """None: the first free one from 7860 on."""
    auth: tuple[tuple[str, str], ...] = ()
    public_hosts: tuple[str, ...] = ()
    """Names under which browsers reach it through a proxy or a name server, beside `host` and loopback."""
    root_path: str | None = None


@contextmanager
def running(settings: Settings, door: Door | None = None) -> Iterator[str]:
    """The Studio for the time of a block; gives its address."""
    door = door or Door()
    check_address(door.host)
    received = TemporaryFolder("inspect-kd-received-")
    # Gradio reads these when it is imported or when a component is made.
    os.environ |= {
        "GRADIO_TEMP_DIR": str(received.path),
        "GRADIO_EXAMPLES_CACHE": str(received.path / "examples"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        **without_proxy(door.host),
    }
    # Otherwise every program on this machine could say from which address it comes, and pass the limit of logins.
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")
    from inspect_kd.apps.studio.app import build
    from inspect_kd.apps.studio.guarded_app import GuardedApp
    from inspect_kd.apps.studio.multipart_limit import refuse_text_fields
    from inspect_kd.apps.studio.session_limit import SessionLimit
    from inspect_kd.apps.studio.theme import STYLE, head, theme

    refuse_text_fields()
    page, studio = build(settings, received.path)
    try:
        try:
            SessionLimit(page.queue(max_size=LONGEST_QUEUE, api_open=False)._queue)
            _, address, _ = page.launch(
                state_session_capacity=MOST_STATES,
                server_name=f"[{door.host}]" if ":" in door.host else door.host,
                server_port=door.port,
                auth=list(door.auth) or None,
                root_path=door.root_path,
                enable_monitoring=False,
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
                _app=GuardedApp(studio, AllowedHosts(door.host, door.public_hosts)),
            )
        except OSError as error:
            raise EnvironmentFault(
                f"port {door.port or 'from 7860 on'} on {door.host} is not free: choose another with --port"
            ) from error
        yield address
    finally:
        page.close(verbose=False)
        studio.desks.close()
        received.close()


def check_address(host: str) -> None:
    """Raise where nothing can listen on it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.bind(address)
    except OSError as error:
        raise EnvironmentFault(texts.NO_SUCH_ADDRESS.format(host=host, reason=error.strerror)) from error


def without_proxy(host: str) -> dict[str, str]:
    """Gradio asks the Studio whether it has started: that stays on this machine, where a proxy is set for other hosts."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    own = ",".join(filter(None, (known, "localhost", host)))
    return {"no_proxy": own, "NO_PROXY": own}
