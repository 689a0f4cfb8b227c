"""The command line with closed standard streams, with unanswered questions, and without a home folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import trees

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


def call(shell_command: str, *, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command; `$IK` is the program."""
    program = f"{sys.executable} -P -m inspect_kd"
    return subprocess.run(
        shell_command.replace("$IK", program),
        shell=True,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
    )


def test_closed_stderr_is_accepted(tmp_path: Path) -> None:
    trees.BUILDERS["mvtec"](tmp_path / "set")
    result = call("$IK data check set --json 2>&-", cwd=tmp_path)
    assert result.returncode == 0 and json.loads(result.stdout)["layout"] == "mvtec"


def test_output_to_a_closed_stdout_is_an_environment_fault(tmp_path: Path) -> None:
    result = call("$IK version >&-", cwd=tmp_path)
    assert result.returncode == 4 and "the output could not be written" in result.stderr


def test_closed_stdin_is_an_empty_list_of_images(run: Path, tmp_path: Path) -> None:
    result = call(f"$IK predict {run} - <&-", cwd=tmp_path)
    assert result.returncode == 3 and "no images in: -" in result.stderr


@pytest.mark.parametrize("command", ["data get visa", "keygen key.pem"])
def test_question_at_the_end_of_the_input_is_a_usage_error(command: str, tmp_path: Path) -> None:
    result = call(f"$IK {command} </dev/null", cwd=tmp_path, INSPECT_KD_DATA=str(tmp_path / "data"))
    assert result.returncode == 2 and "before a question was answered" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_unknown_user_and_folder_as_key_print_one_line(tmp_path: Path) -> None:
    result = call("$IK data check '~nosuchuser/x'; echo $?; $IK keygen --no-locked .; echo $?", cwd=tmp_path)
    assert result.stdout.split() == ["4", "2"] and "Traceback" not in result.stderr
    assert "INSPECT_KD_CACHE" in result.stderr


def test_user_without_home_gets_the_variables_to_set() -> None:
    program = (
        "import os\nfrom inspect_kd import signing, zoo\nfrom inspect_kd.errors import EnvironmentFault\n"
        "import pwd\nos.environ = {}\n"
        "def nobody(uid): raise KeyError(uid)\npwd.getpwuid = nobody\n"
        "for folder in (zoo.cache_home, zoo.data_home, signing.trust_store):\n"
        "    try: print(folder())\n"
        "    except EnvironmentFault as error: assert 'INSPECT_KD_TRUST' in str(error)"
    )
    result = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout == "", result.stderr
