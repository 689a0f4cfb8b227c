"""Limit the memory of Gradio's queue for sessions that do not fetch their results.

Gradio itself keeps every result until its session reads it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import Any

from gradio.queueing import Event, Queue
from gradio.server_messages import EventMessage, ProcessCompletedMessage

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.server.http_guard import MAX_SESSION_NAME_LENGTH, is_session_name

MAX_UNREAD = 32
"""Limit of the events of one session that are running or have unread results."""
MAX_SESSIONS = 512
"""Limit of the sessions that the queue keeps."""
MAX_SESSION_BYTES, MAX_TOTAL_BYTES = 2**26, 2**28
"""Limits of the unread results of one session, and of all sessions together."""
MESSAGE_OVERHEAD_BYTES, VALUE_OVERHEAD_BYTES = 1024, 64
"""Memory of a message, and of a value in it, in addition to its text."""


class UnreadMessages(asyncio.Queue[EventMessage]):
    """The unread messages of a session, with their total size."""

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
        """The events that the unread messages belong to."""
        return {message.event_id for message in self._queue}  # type: ignore[attr-defined]


def size_of(message: EventMessage) -> int:
    """Estimate the memory of a message."""
    total, values = MESSAGE_OVERHEAD_BYTES, list(vars(message).values())
    while values:
        value: Any = values.pop()
        total += VALUE_OVERHEAD_BYTES
        if isinstance(value, str | bytes):
            total += sys.getsizeof(value)  # a character takes up to four bytes
        elif isinstance(value, dict):
            values += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            values += value
    return total


class SessionLimit:
    """Replaces a queue's `push` and `send_message` by versions that check the limits."""

    def __init__(self, queue: Queue) -> None:
        self.queue, self._push, self._send = queue, queue.push, queue.send_message
        queue.push, queue.send_message = self.push, self.send_message  # type: ignore[method-assign]

    async def push(self, body: Any, request: Any, username: str | None) -> tuple[bool, Any, Any]:
        """Queue an event, or refuse it if its session has too many unread results."""
        session = body.session_hash
        reason = self.reason_to_refuse(session) if session else None
        if reason is not None:
            return False, reason, "error"
        self.forget_idle_sessions()
        unread, events = self.queue.pending_messages_per_session, self.queue.pending_event_ids_session
        if session:
            if session not in unread:
                unread[session] = UnreadMessages()
            # The longest idle session comes first in both.
            unread.move_to_end(session)
            if session in events:
                events[session] = events.pop(session)
        return await self._push(body=body, request=request, username=username)

    def reason_to_refuse(self, session: str) -> str | None:
        """The reason to refuse an event of this session; None if it is allowed."""
        if not is_session_name(session):
            return texts.BAD_SESSION_NAME.format(maximum=MAX_SESSION_NAME_LENGTH)
        if len(self.prune_events(session)) >= MAX_UNREAD:
            return texts.TOO_MANY_UNREAD.format(maximum=MAX_UNREAD)
        return None

    def prune_events(self, session: str) -> set[str]:
        """Keep only a session's events that are running or have unread messages, and return them; Gradio keeps others too."""
        events = self.queue.pending_event_ids_session.get(session, set())
        unread = self.queue.pending_messages_per_session.get(session)
        unread_ids = unread.event_ids() if isinstance(unread, UnreadMessages) else set()
        events &= unread_ids | self.queue.event_ids_to_events.keys()
        return events

    def send_message(self, event: Event, event_message: EventMessage) -> None:
        """Pass a message on to its session; end the event if the session has no room for it."""
        unread = self.queue.pending_messages_per_session.get(event.session_hash)
        if unread is None:  # the session has been dropped
            event.alive = False
            return
        if isinstance(unread, UnreadMessages) and unread.bytes + size_of(event_message) > MAX_SESSION_BYTES:
            # An error replaces the message, and the event ends.
            self._send(event, ProcessCompletedMessage(output={"error": texts.RESULTS_NOT_READ}, success=False))
            event.alive = False
            return
        self._send(event, event_message)
        self.forget_largest()

    def forget_largest(self) -> None:
        """Drop the sessions with the largest unread results until the total is within its limit."""
        unread_by_session = self.queue.pending_messages_per_session
        sizes = {
            session: messages.bytes
            for session, messages in unread_by_session.items()
            if isinstance(messages, UnreadMessages)
        }
        while sum(sizes.values()) > MAX_TOTAL_BYTES:
            largest = max(sizes, key=sizes.__getitem__)
            del sizes[largest]
            self.forget(largest)

    def forget_idle_sessions(self) -> None:
        """Drop the sessions that have been idle longest and have no running event; their next event opens them again."""
        running = {event.session_hash for event in self.queue.event_ids_to_events.values()}
        for table in (self.queue.pending_messages_per_session, self.queue.pending_event_ids_session):
            for session in list(table)[: max(0, len(table) - MAX_SESSIONS)]:
                if session not in running:
                    self.forget(session)

    def forget(self, session: str) -> None:
        """Drop one session with its unread results."""
        self.queue.pending_messages_per_session.pop(session, None)
        self.queue.pending_event_ids_session.pop(session, None)
