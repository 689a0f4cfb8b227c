"""All commands accept file names that are not UTF-8, as older archives and network shares have them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from inspect_kd import strict_json
from inspect_kd.atomic_write import write_text
from inspect_kd.datasets import open_dataset
from inspect_kd.errors import BadInput, UsageError, printable
from inspect_kd.training.run import choose_folder
from tests import trees
from tests.tiny import command

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have only UTF-8 names")

LATIN1_NAME = os.fsdecode(b"Pr\xfcfling")
ESCAPED_NAME = "Pr\\udcfcfling"


def call(*arguments: object, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program with streams that refuse text that UTF-8 cannot encode, as in all locales but C."""
    encoded = [os.fsencode(str(argument)) for argument in arguments]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    result = subprocess.run(
        [sys.executable, "-P", "-m", "inspect_kd", *encoded], input=stdin, capture_output=True, env=environment, cwd=cwd
    )
    out, err = (stream.decode("utf-8") for stream in (result.stdout, result.stderr))
    return subprocess.CompletedProcess(result.args, result.returncode, out, err)


@pytest.fixture(scope="module")
def images(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images of which two have names that are not UTF-8."""
    sources = sorted((parts / "bottle" / "test").rglob("*.png"))[:3]
    names = ("a.png", f"{LATIN1_NAME}.png", f" {LATIN1_NAME} 2.png ")
    folder = tmp_path_factory.mktemp("names")
    return [Path(shutil.copy(image, folder / name)) for image, name in zip(sources, names, strict=True)]


@pytest.fixture(scope="module")
def data_set(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose files, category and kind of defect have names that are not UTF-8."""
    root = tmp_path_factory.mktemp("data") / LATIN1_NAME
    sound, scratched = root / LATIN1_NAME / "good", root / LATIN1_NAME / os.fsdecode(b"Kratzer\xdf")
    sound.mkdir(parents=True)
    scratched.mkdir()
    for number, image in enumerate(sorted((parts / "bottle").rglob("good/*.png"))):
        shutil.copy(image, sound / f"{LATIN1_NAME}{number}.png")
    for image in sorted((parts / "bottle" / "test").rglob("*.png")):
        if image.parent.name != "good":
            mask = parts / "bottle" / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
            shutil.copy(image, scratched / f"{LATIN1_NAME}{image.parent.name}.png")
            shutil.copy(mask, scratched / f"{LATIN1_NAME}{image.parent.name}_mask.png")
    return root


def test_predict_inspects_images_with_latin1_names(run: Path, images: list[Path], tmp_path: Path) -> None:
    overlays = tmp_path / LATIN1_NAME
    result = call("predict", run / "r.onnx", *images, images[0], "--overlays", overlays)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(path) for path in (*images, images[0])]
    assert sorted(path.name for path in overlays.iterdir()) == sorted(
        ["a.jpg", "a-2.jpg", f"{LATIN1_NAME}.jpg", f" {LATIN1_NAME} 2.jpg"]
    )
    assert all(path.read_bytes().startswith(b"\xff\xd8") for path in overlays.iterdir())


def test_predict_reads_names_from_stdin_byte_for_byte(run: Path, images: list[Path], tmp_path: Path) -> None:
    names = [f"{LATIN1_NAME} broken.png", *(path.name for path in images)]
    for image in images:
        shutil.copy(image, tmp_path)
    (tmp_path / names[0]).write_bytes(b"no image")
    assert names[3].startswith(" ") and names[3].endswith(" ")
    result = call("predict", run / "r.onnx", "-", stdin=b"\n\n".join(map(os.fsencode, names)), cwd=tmp_path)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 3 and [Path(line.get("image")).name for line in lines] == names, result.stderr
    assert lines[0]["decision"] == "NG" and f"{ESCAPED_NAME} broken.png: not a readable image" in lines[0]["error"]
    assert not any("error" in line for line in lines[1:])


def test_predict_reads_a_list_with_windows_line_ends(run: Path, images: list[Path], tmp_path: Path) -> None:
    shutil.copy(images[0], tmp_path / "a.png")
    shutil.copy(images[0], tmp_path / "b.png\r")
    result = call("predict", run / "r.onnx", "-", stdin=b"a.png\r\nb.png\r\n", cwd=tmp_path)
    assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == ["a.png", "b.png\r"], result.stderr
    assert result.returncode == 0


def test_batch_continues_after_impossible_images(run: Path, images: list[Path], tmp_path: Path) -> None:
    """The batch has an image too wide for a JPEG, an impossible file name, and a normal image."""
    Image.new("L", (70_000, 40)).save(tmp_path / "wide.png")
    names = [str(tmp_path / "wide.png"), "x" * 300, str(images[0])]
    result = call("predict", run / "r.onnx", *names, "--category", "fabric", "--overlays", tmp_path / "out")
    assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == names
    assert result.returncode == 3 and f"no overlay of {names[0]} was written: " in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.jpg"]


def test_label_next_copies_images_with_latin1_names_and_shows_them_in_the_sheet(
    run: Path, images: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / LATIN1_NAME
    result = call("label-next", run, images[0].parent, "-n", 3, "--out", out, "--known", images[1])
    assert result.returncode == 0, result.stderr
    chosen = [json.loads(line)["image"] for line in result.stdout.splitlines()]
    assert sorted(chosen) == sorted(str(path) for path in images[:2]), "the third has a space after its suffix"
    assert sorted(path.name[4:] for path in out.iterdir()) == sorted(Path(image).name for image in chosen)
    assert (tmp_path / f"{LATIN1_NAME}_sheet.jpg").read_bytes().startswith(b"\xff\xd8")
    assert f"{ESCAPED_NAME}_sheet.jpg" in result.stderr


def test_contact_sheet_escapes_lone_surrogates() -> None:
    """The sheet is drawn in a separate process, because OpenCV could crash it."""
    program = (
        "import numpy as np\nfrom inspect_kd.overlay import contact_sheet\n"
        "def sheet(name): return contact_sheet([(name, np.zeros((9, 9, 3), np.uint8))])\n"
        "assert (sheet('Pr\\udcfcf\\n') == sheet(r'Pr\\udcfcf\\n')).all() and (sheet('a') != sheet('b')).any()"
    )
    result = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_data_check_shows_latin1_names_escaped(data_set: Path, tmp_path: Path) -> None:
    root = shutil.copytree(data_set, tmp_path / LATIN1_NAME)
    truncated = next((root / LATIN1_NAME / "good").iterdir())
    truncated.write_bytes(truncated.read_bytes()[:-200])
    result = call("data", "check", root)
    assert result.returncode == 3 and ESCAPED_NAME in result.stdout and "1 error" in result.stderr, result.stderr


def test_eval_measures_a_data_set_with_latin1_names(run: Path, data_set: Path) -> None:
    result = call("eval", run, "--data", data_set)
    assert result.returncode == 0 and ESCAPED_NAME in result.stdout, result.stderr


def test_train_resumes_and_reports_latin1_names(data_set: Path, tmp_path: Path) -> None:
    out = tmp_path / LATIN1_NAME
    log = out / "r" / "metrics.jsonl"
    training = subprocess.Popen(command(data_set, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not (log.is_file() and len(log.read_text().splitlines()) >= 4):
        assert training.poll() is None, "the training ended before it could be killed"
        time.sleep(0.01)
    training.send_signal(signal.SIGKILL)
    training.wait()
    result = subprocess.run(command(data_set, out, "--resume", "--json"), capture_output=True, check=False)
    assert result.returncode == 0 and b"resuming at step" in result.stderr, result.stderr
    summary = json.loads(result.stdout)
    assert summary["run"] == str(out / "r") and summary["data"]["source"] == str(data_set.resolve())

    report = json.loads((out / "r" / "report.json").read_text(encoding="utf-8"))
    assert {score["kind"] for score in report["scores"]} == {"good", "Kratzer\\udcdf"}
    file_names = {path.name for path in data_set.rglob("*.png")}
    assert {score["image"] for score in report["scores"]} <= file_names
    page = (out / "r" / "report.html").read_text(encoding="utf-8")
    assert (
        f"{ESCAPED_NAME}, Kratzer\\udcdf" in page
        and page.count(f"{ESCAPED_NAME}/good/{ESCAPED_NAME}") + page.count(f">{ESCAPED_NAME}") > 5
    )
    prediction = call("predict", out / "r", data_set / LATIN1_NAME / "good")
    assert prediction.returncode == 0, prediction.stderr


def test_unprintable_run_names_and_options_are_refused(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be printable text"):
        choose_folder(tmp_path, LATIN1_NAME, resume=False)
    result = call("train", "--data", parts, "--model", "embedded", "--dry-run", "--unlabelled", tmp_path / LATIN1_NAME)
    assert result.returncode == 2 and f"unlabelled {tmp_path}/{ESCAPED_NAME}: " in result.stderr


def test_categories_and_kinds_are_escaped(tmp_path: Path) -> None:
    root = trees.BUILDERS["mvtec"](tmp_path / "set")
    (root / "screw").rename(root / LATIN1_NAME)
    (root / LATIN1_NAME / "test" / "bent").rename(root / LATIN1_NAME / "test" / "be\nnt")
    data = open_dataset(root)
    assert data.categories == [ESCAPED_NAME] and {sample.kind for sample in data.samples} == {"good", "be\\nnt"}
    assert all(sample.image.is_file() for sample in data.samples)


def test_json_file_preserves_latin1_names(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", json.dumps({"image": LATIN1_NAME, "ü": "ü"}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"image": LATIN1_NAME, "ü": "ü"}
    assert printable(f"{LATIN1_NAME}\x1b ü") == f"{ESCAPED_NAME}\\x1b ü"
    with pytest.raises(ValueError):
        strict_json.loads(json.dumps(LATIN1_NAME))


def test_studio_escapes_latin1_names_and_offers_no_folder_with_one(data_set: Path, tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from inspect_kd.apps.studio.artifact.library import ArtifactLibrary
    from inspect_kd.apps.studio.train import data_check
    from inspect_kd.apps.studio.train.data_folders import data_folders, first_sound_parts, folder_below

    root = tmp_path / "root"
    shutil.copytree(data_set / LATIN1_NAME, root / LATIN1_NAME)
    shutil.copytree(data_set / LATIN1_NAME, root / "parts")
    broken = next((root / "parts" / "good").iterdir())
    broken.write_bytes(b"no image")
    assert data_folders(root) == [".", "parts"]
    with pytest.raises(BadInput, match="not a folder below"):
        folder_below(root, LATIN1_NAME)
    captions = [name for name, _ in first_sound_parts(root / "parts")]
    assert captions and all(ESCAPED_NAME in caption and caption.isprintable() for caption in captions)
    *_, result = data_check.check(root, "parts", tmp_path)
    assert not result.is_trainable
    assert result.findings[0].files == (f"parts/good/{printable(broken.name)}",)
    assert (
        result.findings[0].text
        == f"parts/good/{printable(broken.name)}: not a readable image; supported are PNG, JPEG, BMP, TIFF and WebP"
    )
    assert ArtifactLibrary([tmp_path / f"{LATIN1_NAME}.onnx", tmp_path / LATIN1_NAME / "b.onnx"]).names == [
        ESCAPED_NAME,
        "b",
    ]


def test_studio_lists_no_run_with_a_latin1_name(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    from inspect_kd.apps.studio.train.trainings import is_run

    for name in ("r", LATIN1_NAME):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    assert is_run(tmp_path / "r") and not is_run(tmp_path / LATIN1_NAME)


def test_overlays_continue_after_a_name_that_is_too_long(run: Path, images: list[Path], tmp_path: Path) -> None:
    long = tmp_path / f"{'x' * 251}.png"
    shutil.copy(images[0], long)
    result = call("predict", run / "r.onnx", long, long, images[0], "--overlays", tmp_path / "out")
    assert result.returncode == 3 and f"no overlay of {long} was written: " in result.stderr
    assert "a.jpg" in [path.name for path in (tmp_path / "out").iterdir()]
