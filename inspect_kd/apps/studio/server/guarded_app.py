"""Gradio's application with the Studio's own middleware around all of it."""

from __future__ import annotations

from gradio.routes import App, ORJSONResponse
from starlette.types import ASGIApp

from inspect_kd.apps.studio.server.allowed_hosts import AllowedHosts
from inspect_kd.apps.studio.server.body_limit import BodyLimit
from inspect_kd.apps.studio.server.http_guard import HttpGuard
from inspect_kd.apps.studio.server.login_gate import LoginGate
from inspect_kd.apps.studio.server.login_limit import LoginLimit
from inspect_kd.apps.studio.server.session_states import SessionStates
from inspect_kd.apps.studio.server.upload_gate import UploadGate
from inspect_kd.apps.studio.studio import Studio


class GuardedApp(App):
    """Gradio's application inside the Studio's middleware.

    Middleware that is passed to `launch` would not suffice: Gradio puts it inside its own, which answers CORS requests first. The page
    cannot be mounted in another application, because Gradio checks the paths that clients name only for launched pages.
    """

    def __init__(self, studio: Studio, hosts: AllowedHosts) -> None:
        super().__init__(default_response_class=ORJSONResponse)
        self.state_holder = SessionStates()  # type: ignore[no-untyped-call]
        self.studio, self.hosts = studio, hosts

    def build_middleware_stack(self) -> ASGIApp:
        studio = self.studio
        app: ASGIApp = super().build_middleware_stack()
        app = UploadGate(app, studio.uploads, studio.sessions.free_bytes, studio.settings.max_kept_mb)
        return HttpGuard(LoginLimit(LoginGate(BodyLimit(app), self)), self.hosts, studio.sessions.served)
