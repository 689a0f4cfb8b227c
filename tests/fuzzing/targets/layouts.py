"""Folders of parts in each layout, and the tables that list them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

from inspect_kd.errors import BadInput
from tests.fuzzing.mutate import mutate_bytes
from tests.fuzzing.targets.target import Target


class Trees(Target):
    """Folders in each layout, with files renamed, mutated or replaced by links, and hostile tables."""

    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        from tests.trees import BUILDERS

        self.seeds = {name: sandbox / "seeds" / name for name in BUILDERS}
        for name, folder in self.seeds.items():
            BUILDERS[name](folder)
        self.files = {
            name: sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            for name, folder in self.seeds.items()
        }

    def make(self, rng: Random) -> bytes:
        """Describe a tree: its layout and the changes to it."""
        name = rng.choice(list(self.seeds))
        changes = [self._change(rng, name) for _ in range(rng.choice((1, 1, 2, 4)))]
        return json.dumps(
            {"layout": name, "changes": changes, "group": rng.choice((None, None, r"(\d)", "("))}
        ).encode()

    def _change(self, rng: Random, name: str) -> list[Any]:
        file = rng.choice(self.files[name])
        tables = [path for path in self.files[name] if path.endswith(".csv")]
        if tables and rng.random() < 0.7:
            table = (self.seeds[name] / tables[0]).read_bytes()
            return ["write", tables[0], _mutate_table(rng, table, self.bait).decode("latin-1")]
        if name == "csv" and file in tables:
            # The user names this table, so a link in its place is followed and would be no finding: change something else.
            return ["folder", "images"]
        other_file = rng.choice(self.files[name])
        odd_names = ("ground_truth", "a\nb.png", "\udcff.png", "x" * 240 + ".png", ".png", "ok.png", "a_mask_mask.png")
        match rng.randrange(9):
            case 0:
                return ["link", file, str(self.bait / rng.choice(("secret.png", "secret.bin", "Part0_label.bmp")))]
            case 1:
                return ["link", str(Path(file).parent), str(self.bait)]
            case 2:
                target = rng.choice(("nothing", Path(file).name, "/dev/zero", "/proc/self/environ", "..", "."))
                return ["link", file, target]
            case 3:
                return ["fifo", file]
            case 4:
                return ["folder", file]
            case 5:
                return ["move", file, str(Path(file).with_name(rng.choice(odd_names)))]
            case 6:
                return [
                    "write",
                    file,
                    mutate_bytes(rng, (self.seeds[name] / other_file).read_bytes()).decode("latin-1"),
                ]
            case 7:
                return ["link", rng.choice((".", "split_csv", "test", "train")), str(self.bait)]
        return ["move", file, other_file]

    def feed(self, data: bytes) -> None:
        from inspect_kd.datasets import list_images, list_samples, open_dataset
        from inspect_kd.datasets.check import check
        from inspect_kd.datasets.images import read_image
        from inspect_kd.types import NoProgress

        spec = json.loads(data)
        root = self.sandbox / "tree"
        _remove(root)
        shutil.copytree(self.seeds[spec["layout"]], root, copy_function=os.link)
        for change in spec["changes"]:
            _apply(root, *change)
        path = root / "parts.csv" if spec["layout"] == "csv" else root
        try:
            data_set = open_dataset(path, group=spec["group"])
            data_set.digest
            for finding in check(data_set, NoProgress()):
                assert finding.text
        finally:
            # Listing is also tried where opening has failed.
            for list_all in (list_samples, list_images):
                try:
                    for item in list_all(root):
                        read_image(getattr(item, "image", item))
                except BadInput:
                    continue


def _mutate_table(rng: Random, table: bytes, bait: Path) -> bytes:
    """Mutate a CSV with paths that lead outside, short rows or unclosed quotes."""
    rows = [row.split(b",") for row in table.splitlines()]
    paths = (
        "../../outside/secret.png",
        str(bait / "secret.png"),
        "\x00",
        "",
        "x" * 5000,
        ".",
        "~/x",
        "a\\..\\b",
        "folder",
    )
    for _ in range(rng.randint(1, 3)):
        row = rng.choice(rows)
        match rng.randrange(6):
            case 0 | 1:
                row[rng.randrange(len(row))] = rng.choice(paths).encode()
            case 2:
                row.pop()
                if not row:
                    row.append(b"")
            case 3:
                row.append(b"more")
            case 4:
                row[0] = b'"' + row[0] + (b"x" * 200_000 if rng.random() < 0.3 else b"")
            case _:
                row[0] = b"\xff\xfe" + row[0]
    text = b"\n".join(b",".join(row) for row in rows)
    return mutate_bytes(rng, text, rounds=2) if rng.random() < 0.4 else text


def _apply(root: Path, kind: str, file: str, value: str = "") -> None:
    """Apply a change, unless an earlier change removed its file. `value`: a path, or the new content."""
    path = root / file
    if kind == "move":
        if path.is_file():
            (root / value).parent.mkdir(parents=True, exist_ok=True)
            if not (root / value).is_dir():
                path.rename(root / value)
        return
    if path == root or not _is_below(root, path):
        return
    _remove(path)
    if not path.parent.is_dir():
        return
    if kind == "link":
        path.symlink_to(value)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(value.encode("latin-1"))


def _is_below(root: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root.resolve())
    except RuntimeError:
        return False  # an earlier change made a circular link


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
