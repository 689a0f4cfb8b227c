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

AT_ONCE = 10
"""Wrong logins that an address may make before it has to wait."""
SECONDS_EACH = 30.0
"""After that, one login in so many seconds."""
MOST_ADDRESSES = 10_000
"""Remembered; beyond that, the address of the oldest attempt is forgotten."""


class LoginLimit:
    """Middleware that counts attempts: a login takes one before its password is checked, a right one gives it back.

    Attempts come back with time. No address is locked out by another one, and many requests at once gain nothing.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self.app, self.clock = app, clock
        self.free_again: OrderedDict[str, float] = OrderedDict()
        """For each address, the time when all of its attempts are back."""

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
            if is_right and address in self.free_again:
                self.free_again[address] -= SECONDS_EACH
            await send(message)

        await self.app(scope, receive, give_back_if_right)

    def take_attempt(self, address: str) -> float:
        """Take one attempt of an address; return 0, or the seconds until the next attempt."""
        now = self.clock()
        free_again = max(now, self.free_again.get(address, now)) + SECONDS_EACH
        wait = free_again - now - AT_ONCE * SECONDS_EACH
        if wait > 0:
            return wait
        self.free_again[address] = free_again
        self.free_again.move_to_end(address)
        if len(self.free_again) > MOST_ADDRESSES:
            self.free_again.popitem(last=False)
        return 0.0


def network_of(address: str) -> str:
    """The address to count by: in IPv6 one machine has a whole /64 network; an IPv4 address in IPv6 counts as itself."""
    try:
        full = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(full.ipv4_mapped or IPv6Network((full, 64), strict=False))
