"""Host names under which the Studio answers, and origins whose pages may call it.

A page of another site can make a browser send requests to the Studio, and can point its own name at this machine (DNS rebinding).
The `Host` header states the name that the browser used, and `Origin` the page that sends the request: both must be the Studio's own.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

WILDCARD_ADDRESSES = ("0.0.0.0", "::")
"""Values of `--host` that mean all addresses of the machine."""
DEFAULT_PORTS = {"http": 80, "https": 443}


class AllowedHosts:
    """The hosts that are accepted: `localhost`, loopback addresses, the Studio's own address, and the public names of a proxy."""

    def __init__(self, listen_address: str, public_hosts: Iterable[str] = ()) -> None:
        """`public_hosts`: each NAME or NAME:PORT, as in the address bar."""
        self.listens_everywhere = listen_address in WILDCARD_ADDRESSES
        self.public_hosts = tuple(split for name in public_hosts if (split := _split(name)) is not None)
        own_name = socket.gethostname() if self.listens_everywhere else listen_address
        self.names = {"localhost", own_name.lower(), *(str(split.hostname) for split in self.public_hosts)}

    def accepts_host(self, host: str) -> bool:
        """Whether a `Host` header names the Studio, with any port."""
        split = _split(host)
        if split is None or split.hostname is None:
            return False
        if split.hostname in self.names:
            return True
        try:
            address = ip_address(split.hostname)
        except ValueError:
            return False
        # A page that was loaded by address cannot redirect that address to this machine, as it could a name.
        return address.is_loopback or self.listens_everywhere

    def accepts_origin(self, origin: str, host: str) -> bool:
        """Whether `origin` is the host and port of the `Host` header, or of a public name."""
        scheme, _, rest = origin.partition("://")
        page, port = _split(rest), DEFAULT_PORTS.get(scheme)
        if page is None or port is None:
            return False  # also for "null", the origin of a sandboxed page or of a local file
        own_hosts = [split for split in (_split(host), *self.public_hosts) if split is not None]
        return (page.hostname, page.port or port) in [(split.hostname, split.port or port) for split in own_hosts]


def is_host(name: str) -> bool:
    """Whether this is a valid `Host` header: NAME or NAME:PORT."""
    return _split(name) is not None


def _split(host: str) -> SplitResult | None:
    """Split NAME, ADDRESS or [ADDRESS], each with or without a port; None for anything else."""
    try:
        split = urlsplit(f"//{host}")
        is_plain = split.netloc == host and "@" not in host and bool(split.hostname) and split.port != 0
    except ValueError:
        return None
    return split if is_plain else None
