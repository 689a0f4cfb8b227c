"""Reading untrusted files: only regular files of a bounded size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inspect_kd.errors import BadInput
from inspect_kd.plain_file import MissingFile, read_plain_file


def test_regular_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "note"
    path.write_bytes(b"12345")
    assert read_plain_file(path, "note", 5) == b"12345"
    with pytest.raises(BadInput, match="5 bytes exceeds the limit of 4 bytes"):
        read_plain_file(path, "note", 4)


@pytest.mark.parametrize("name", ["none", "file/none", "bad\0name"])
def test_missing_file_raises_its_own_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingFile, match="no such note"):
        read_plain_file(tmp_path / name, "note", 4)


def test_folder_pipe_and_device_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(BadInput, match="not a regular file"):
            read_plain_file(path, "note", 4)


def test_link_is_refused_unless_followed(tmp_path: Path) -> None:
    (tmp_path / "note").write_bytes(b"1")
    (tmp_path / "link").symlink_to("note")
    assert read_plain_file(tmp_path / "link", "note", 4) == b"1"
    with pytest.raises(BadInput, match="is a symbolic link"):
        read_plain_file(tmp_path / "link", "note", 4, follow_links=False)
