"""Refuse text fields in uploads: Gradio would keep them in memory without a limit."""

from __future__ import annotations

from gradio import route_utils
from gradio.route_utils import GradioMultiPartParser
from starlette.formparsers import MultiPartException

from inspect_kd.apps.studio import texts


class FilesOnlyParser(GradioMultiPartParser):
    """Gradio's parser of uploads, restricted to files."""

    def on_headers_finished(self) -> None:
        """Refuse a field that is not a file before its content is read."""
        super().on_headers_finished()
        if self._current_part.file is None:
            raise MultiPartException(texts.FILES_ONLY)


def refuse_text_fields() -> None:
    """Make Gradio's upload route use `FilesOnlyParser`."""
    route_utils.GradioMultiPartParser = FilesOnlyParser  # type: ignore[misc]
