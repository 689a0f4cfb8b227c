"""Limit what Gradio keeps of a session: its name must be short and plain, and no copies of what the page shows are kept."""

from __future__ import annotations

from gradio.state_holder import SessionState, StateHolder
from starlette.exceptions import HTTPException

from inspect_kd.apps.studio import texts
from inspect_kd.apps.studio.server.http_guard import MAX_SESSION_NAME_LENGTH, is_session_name


class SessionStates(StateHolder):
    """Gradio's session states with short and plain names only, and without initial copies of component values."""

    def __getitem__(self, session_id: str) -> SessionState:
        """The state of a session, made at its first use."""
        if not is_session_name(session_id):
            raise HTTPException(400, texts.BAD_SESSION_NAME.format(maximum=MAX_SESSION_NAME_LENGTH))
        is_new = session_id not in self.session_data
        state = super().__getitem__(session_id)
        if is_new:
            forget_values(state)
        return state


def forget_values(state: SessionState | None) -> None:
    """Drop the copies of shown values, such as whole reports; only Gradio's deep links use them, which the Studio refuses."""
    if state is not None:
        state.config_values.clear()
