"""Start and stop the Studio: on loopback by default, without requests to other hosts; no temporary files remain."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.server.allowed_hosts import AllowedHosts
from inspect_kd.apps.studio.server.temporary_folder import TemporaryFolder
from inspect_kd.apps.studio.settings import Settings
from inspect_kd.errors import EnvironmentFault

MAX_QUEUE = 32
"""Limit of the events that wait for their turn."""
MAX_STATES = 256
"""Sessions whose Gradio state is kept; an open page needs its state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings:
    """Address, logins and public names under which a Studio is served."""

    host: str = "127.0.0.1"
    port: int | None = None
    """None: the first free port from 7860 on."""
    auth: tuple[tuple[str, str], ...] = ()
    public_hosts: tuple[str, ...] = ()
    """Names under which browsers reach the Studio through a proxy or a name server, in addition to `host` and loopback."""
    root_path: str | None = None


@contextmanager
def run_studio(settings: Settings, server: ServerSettings | None = None) -> Iterator[str]:
    """Run the Studio for the duration of a block; yield its address."""
    server = server or ServerSettings()
    check_address(server.host)
    gradio_folder = TemporaryFolder("inspect-kd-received-")
    # Gradio reads these variables when it is imported or when a component is constructed.
    os.environ |= {
        "GRADIO_TEMP_DIR": str(gradio_folder.path),
        "GRADIO_EXAMPLES_CACHE": str(gradio_folder.path / "examples"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        **without_proxy(server.host),
    }
    # Otherwise programs on this machine could forge their client address and evade the login limit.
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")
    from inspect_kd.apps.studio.app import build
    from inspect_kd.apps.studio.server.connection_limit import MAX_CONNECTIONS, limit_connections, raise_file_limit
    from inspect_kd.apps.studio.server.guarded_app import GuardedApp
    from inspect_kd.apps.studio.server.multipart_limit import refuse_text_fields
    from inspect_kd.apps.studio.server.session_limit import SessionLimit
    from inspect_kd.apps.studio.theme import STYLES, head, theme

    refuse_text_fields()
    max_files = raise_file_limit()
    page, studio = build(settings, gradio_folder.path)
    try:
        try:
            queue = page.queue(max_size=MAX_QUEUE, api_open=False)._queue
            SessionLimit(queue)  # replaces methods of the queue
            _, address, _ = page.launch(
                state_session_capacity=MAX_STATES,
                server_name=f"[{server.host}]" if ":" in server.host else server.host,
                server_port=server.port,
                auth=list(server.auth) or None,
                root_path=server.root_path,
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
                css_paths=STYLES,
                head=head(),
                _app=GuardedApp(studio, AllowedHosts(server.host, server.public_hosts)),
            )
        except OSError as error:
            raise EnvironmentFault(
                f"port {server.port or 'from 7860 on'} on {server.host} is not free: choose another with --port"
            ) from error
        limit_connections(page.server, min(MAX_CONNECTIONS, max_files // 2))
        yield address
    finally:
        page.close(verbose=False)
        studio.sessions.close()
        gradio_folder.close()


def check_address(host: str) -> None:
    """Raise if this machine cannot listen on an address."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.bind(address)
    except OSError as error:
        raise EnvironmentFault(texts.NO_SUCH_ADDRESS.format(host=host, reason=error.strerror)) from error


def without_proxy(host: str) -> dict[str, str]:
    """Environment variables that exclude the Studio from any proxy: Gradio sends it a request to see that it has started."""
    present = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    hosts = ",".join(filter(None, (present, "localhost", host)))
    return {"no_proxy": hosts, "NO_PROXY": hosts}
