"""Gradio's application with the Studio's own middleware around all of it."""

from __future__ import annotations

from gradio.routes import App, ORJSONResponse
from starlette.types import ASGIApp

from inspect_kd.apps.studio.allowed_hosts import AllowedHosts
from inspect_kd.apps.studio.body_limit import BodyLimit
from inspect_kd.apps.studio.http_guard import HttpGuard
from inspect_kd.apps.studio.login_gate import LoginGate
from inspect_kd.apps.studio.login_limit import LoginLimit
from inspect_kd.apps.studio.session_states import SessionStates
from inspect_kd.apps.studio.studio import Studio
from inspect_kd.apps.studio.upload_gate import UploadGate


class GuardedApp(App):
    """Middleware that is handed to `launch` would stand inside Gradio's own, whose CORS answers come first.

    To mount the page in an application of ours instead is no way: Gradio checks the paths that clients name only for
    pages that were launched.
    """

    def __init__(self, studio: Studio, hosts: AllowedHosts) -> None:
        super().__init__(default_response_class=ORJSONResponse)
        self.state_holder = SessionStates()  # type: ignore[no-untyped-call]
        self.studio, self.hosts = studio, hosts

    def build_middleware_stack(self) -> ASGIApp:
        studio = self.studio
        app: ASGIApp = super().build_middleware_stack()
        app = UploadGate(app, studio.uploads, studio.desks.free_bytes, studio.settings.max_kept_mb)
        return HttpGuard(LoginLimit(BodyLimit(LoginGate(app, self))), self.hosts, studio.desks.shown)
