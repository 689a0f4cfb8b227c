"""Bound what Gradio remembers of a session: its name, and no copy of what the page shows."""

from __future__ import annotations

from gradio.state_holder import SessionState, StateHolder
from starlette.exceptions import HTTPException

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.http_guard import LONGEST_NAME


class SessionStates(StateHolder):
    """Gradio's states by session, which refuses long names and starts each state without copies."""

    def __getitem__(self, session_id: str) -> SessionState:
        if len(session_id) > LONGEST_NAME:
            raise HTTPException(400, texts.SESSION_NAME_TOO_LONG.format(most=LONGEST_NAME))
        is_new = session_id not in self.session_data
        state = super().__getitem__(session_id)
        if is_new:
            forget_values(state)
        return state


def forget_values(state: SessionState | None) -> None:
    """Drop the copies of shown values, such as a whole report: they serve Gradio's deep links, which the Studio refuses."""
    if state is not None:
        state.config_values.clear()
