"""Limit open connections, so that idle ones cannot take all files that the process may open.

Each connection is an open file. Without a free one, the server accepts no connection and can open no picture.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

MAX_CONNECTIONS = 512
"""Limit of the open connections; a browser opens up to six per tab."""
MAX_FILES = 65_536
"""Open files that are asked for; the process never needs more."""
LOG_INTERVAL_S = 60.0
"""At most one line on refused connections is logged in this time."""
ACCEPT_ERROR = "socket.accept() out of system resource"
"""What asyncio logs, with a traceback, for each connection that it has no file for."""


def raise_file_limit() -> int:
    """Let this process open as many files as its hard limit allows, up to `MAX_FILES`; return the limit.

    Many systems start programs with a soft limit of 1,024.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return MAX_FILES
    soft, hard = (
        MAX_FILES if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    wanted = max(soft, min(hard, MAX_FILES))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    except (OSError, ValueError):  # macOS has a lower limit of its own
        return soft
    return wanted


def limit_connections(server: Any, maximum: int) -> None:
    """Close the connection that has waited longest for a request whenever more than `maximum` of a uvicorn server are open.

    The newest is not refused instead: then clients that connect and send nothing could keep all others out.
    """
    logging.getLogger("asyncio").addFilter(AcceptErrors())
    open_connections: set[Any] = server.server_state.connections
    protocol: Any = server.config.http_protocol_class  # uvicorn makes one object of it for each connection

    class LimitedProtocol(protocol):  # type: ignore[misc]
        def connection_made(self, transport: asyncio.Transport) -> None:
            self.waiting_since = time.monotonic()
            super().connection_made(transport)
            if len(open_connections) > maximum:
                longest_waiting = min(open_connections, key=waiting_order)
                open_connections.discard(longest_waiting)
                longest_waiting.transport.close()

        def on_response_complete(self) -> None:
            self.waiting_since = time.monotonic()
            super().on_response_complete()

    server.config.http_protocol_class = LimitedProtocol


def waiting_order(connection: Any) -> tuple[bool, float]:
    """Sorts connections: first those that wait for a request, the longest waiting first, then those with a running request.

    Whether a waiting connection has had a request before makes no difference: otherwise clients that send a small request now and then
    would have every newcomer closed.
    """
    cycle = getattr(connection, "cycle", None)
    return cycle is not None and not cycle.response_complete, getattr(connection, "waiting_since", 0.0)


class AcceptErrors(logging.Filter):
    """Passes asyncio's message on connections without a file once per interval, as one line; it logs thousands per second."""

    def __init__(self) -> None:
        super().__init__()
        self.last_passed = -LOG_INTERVAL_S

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith(ACCEPT_ERROR):
            return True
        now = time.monotonic()
        if now - self.last_passed < LOG_INTERVAL_S:
            return False
        self.last_passed = now
        record.msg, record.args, record.exc_info = (
            f"{ACCEPT_ERROR}: raise the limit of open files (ulimit -n)",
            (),
            None,
        )
        return True
