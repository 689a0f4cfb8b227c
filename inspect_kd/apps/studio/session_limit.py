"""Bound what Gradio's queue keeps in memory for sessions that do not fetch their results.

Gradio itself keeps every result until its session reads it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from gradio.queueing import Event, Queue
from gradio.server_messages import EventMessage, ProcessCompletedMessage

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.http_guard import LONGEST_NAME

MOST_UNREAD = 32
"""Events of one session that run, or whose result nobody has read."""
MOST_SESSIONS = 512
"""Sessions that the queue remembers."""
SESSION_BYTES, ALL_BYTES = 2**26, 2**28
"""Unread results of one session, and of all together."""
MESSAGE_BYTES, VALUE_BYTES = 1024, 64
"""What a message and a value in it take beside their text."""


class UnreadMessages(asyncio.Queue[EventMessage]):
    """A session's messages that nobody has read yet, and their size."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self.bytes = 0
        self.sizes: deque[int] = deque()

    def _put(self, item: EventMessage) -> None:
        self.sizes.append(size_of(item))
        self.bytes += self.sizes[-1]
        super()._put(item)

    def _get(self) -> EventMessage:
        self.bytes -= self.sizes.popleft()
        return super()._get()

    def event_ids(self) -> set[str | None]:
        return {message.event_id for message in self._queue}  # type: ignore[attr-defined]


def size_of(message: EventMessage) -> int:
    """About how many bytes a message takes."""
    total, rest = MESSAGE_BYTES, list(vars(message).values())
    while rest:
        value: Any = rest.pop()
        total += VALUE_BYTES
        if isinstance(value, str | bytes):
            total += len(value)
        elif isinstance(value, dict):
            rest += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            rest += value
    return total


class SessionLimit:
    """Stands before a queue's `push` and `send_message`."""

    def __init__(self, queue: Queue) -> None:
        self.queue, self._push, self._send = queue, queue.push, queue.send_message
        queue.push, queue.send_message = self.push, self.send_message  # type: ignore[method-assign]

    async def push(self, body: Any, request: Any, username: str | None) -> tuple[bool, Any, Any]:
        session = body.session_hash
        reason = self.reason_to_refuse(session) if session else None
        if reason is not None:
            return False, reason, "error"
        self.forget_sessions()
        unread = self.queue.pending_messages_per_session
        if session:
            if session not in unread:
                unread[session] = UnreadMessages()
            unread.move_to_end(session)
        return await self._push(body=body, request=request, username=username)

    def reason_to_refuse(self, session: str) -> str | None:
        if len(session) > LONGEST_NAME:
            return texts.SESSION_NAME_TOO_LONG.format(most=LONGEST_NAME)
        if len(self.events_of(session)) >= MOST_UNREAD:
            return texts.TOO_MANY_UNREAD.format(most=MOST_UNREAD)
        return None

    def events_of(self, session: str) -> set[str]:
        """Events that run or whose result waits; Gradio keeps others, too, where a reader left before the end."""
        events = self.queue.pending_event_ids_session.get(session, set())
        unread = self.queue.pending_messages_per_session.get(session)
        waiting = unread.event_ids() if isinstance(unread, UnreadMessages) else set()
        events &= waiting | self.queue.event_ids_to_events.keys()
        return events

    def send_message(self, event: Event, event_message: EventMessage) -> None:
        unread = self.queue.pending_messages_per_session.get(event.session_hash)
        if unread is None:  # forgotten meanwhile
            event.alive = False
            return
        if isinstance(unread, UnreadMessages) and unread.bytes + size_of(event_message) > SESSION_BYTES:
            # Instead of what has no room; the run ends with it.
            self._send(event, ProcessCompletedMessage(output={"error": texts.RESULTS_NOT_READ}, success=False))
            event.alive = False
            return
        self._send(event, event_message)
        self.forget_largest()

    def forget_largest(self) -> None:
        """Drop unread results where all together are too many: a session that reads has next to none."""
        unread = self.queue.pending_messages_per_session
        held = {session: waiting.bytes for session, waiting in unread.items() if isinstance(waiting, UnreadMessages)}
        while sum(held.values()) > ALL_BYTES:
            largest = max(held, key=held.__getitem__)
            del held[largest]
            self.forget(largest)

    def forget_sessions(self) -> None:
        """Drop the sessions that were silent longest and run nothing; a later event of theirs is as of a new one."""
        running = {event.session_hash for event in self.queue.event_ids_to_events.values()}
        for table in (self.queue.pending_messages_per_session, self.queue.pending_event_ids_session):
            for session in list(table)[: max(0, len(table) - MOST_SESSIONS)]:
                if session not in running:
                    self.forget(session)

    def forget(self, session: str) -> None:
        self.queue.pending_messages_per_session.pop(session, None)
        self.queue.pending_event_ids_session.pop(session, None)
