"""Slow down the guessing of passwords: ten wrong logins from one address, then one in half a minute."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.server.routes import LOGIN, is_form

BURST = 10
"""Wrong logins that an address may make before it has to wait."""
SECONDS_PER_ATTEMPT = 30.0
"""Seconds after which one more attempt is allowed."""
MAX_ADDRESSES = 10_000
"""Limit of the addresses whose attempts are counted; beyond it, the address with the oldest attempt is dropped."""


class LoginLimit:
    """Middleware that counts attempts: a login takes one before its password is checked, and gives it back if the password is right.

    Attempts return with time. No address can lock out another, and many simultaneous requests gain nothing.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self.app, self.clock = app, clock
        self.full_at: OrderedDict[str, float] = OrderedDict()
        """For each address, the time at which it has all `BURST` attempts again (a token bucket)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not is_form(scope, LOGIN):
            await self.app(scope, receive, send)
            return
        address = network_of(scope["client"][0] if scope.get("client") else "")
        wait = self.take_attempt(address)
        if wait > 0:
            content = {"detail": texts.TOO_MANY_LOGINS.format(seconds=math.ceil(wait))}
            refusal = JSONResponse(content, 429, headers={"Retry-After": str(math.ceil(wait))})
            await refusal(scope, receive, send)
            return

        async def give_back_if_right(message: Message) -> None:
            is_right = message["type"] == "http.response.start" and message["status"] < 400
            if is_right and address in self.full_at:
                self.full_at[address] -= SECONDS_PER_ATTEMPT
            await send(message)

        await self.app(scope, receive, give_back_if_right)

    def take_attempt(self, address: str) -> float:
        """Take one attempt of an address; return 0, or the seconds until the next attempt."""
        now = self.clock()
        full_at = max(now, self.full_at.get(address, now)) + SECONDS_PER_ATTEMPT
        wait = full_at - now - BURST * SECONDS_PER_ATTEMPT
        if wait > 0:
            return wait
        self.full_at[address] = full_at
        self.full_at.move_to_end(address)
        if len(self.full_at) > MAX_ADDRESSES:
            self.full_at.popitem(last=False)
        return 0.0


def network_of(address: str) -> str:
    """The key by which attempts are counted: an IPv4 address, or an IPv6 /64 network, all of which one machine may own."""
    try:
        ipv6 = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipv6.ipv4_mapped or IPv6Network((ipv6, 64), strict=False))
