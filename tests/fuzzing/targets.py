"""What is fed, and to which door of the program. An input is bytes; a target makes them and hands them in.

Whatever the program answers with one of its own errors is refused; what it takes without one is accepted. Anything else is a
finding.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml

from inspect_kd import zoo
from inspect_kd.errors import BadInput, InspectKDError
from tests.fuzzing.mutate import as_json, changed, damaged
from tests.fuzzing.watch import lay_bait

ARTIFACT = "INSPECT_KD_FUZZ_ARTIFACT"
"""A real artifact, to be damaged beside the tiny one."""


class Target:
    """A folder of its own to work in, a way to make an input from chance alone, and the door that it is put through."""

    native = False
    """A runtime's parser runs in the process: what breaks it must be shown to end well in the quarantine."""

    cpu_s = 5
    """Seconds of the processor that an input may take."""

    def __init__(self, room: Path) -> None:
        self.room = room
        self.bait = lay_bait(room.parent)

    def warm_up(self) -> None:
        """What is imported and built at the first input belongs to no input."""
        with contextlib.suppress(InspectKDError):
            self.feed(self.make(Random("the first")))

    def make(self, rng: Random) -> bytes:
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        raise NotImplementedError


class Wire(Target):
    """The search for tensors in other files."""

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        from tests.fuzzing import graphs

        self.graphs, self.seeds = graphs, [graphs.artifact().SerializeToString()]

    def make(self, rng: Random) -> bytes:
        if rng.random() < 0.9:
            return damaged(rng, rng.choice(self.seeds), self.seeds[0])
        return self.graphs.hostile(rng, self.seeds, self.room)

    def feed(self, data: bytes) -> None:
        from inspect_kd.export.wire import refuse_external_data

        refuse_external_data(data, "a.onnx")


class Card(Target):
    """The card alone, and what the line does with each of its fields."""

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        from tests.fuzzing.graphs import card

        self.seed = card().dump()

    def make(self, rng: Random) -> bytes:
        content = json.loads(self.seed)
        if rng.random() < 1e-5:
            return json.dumps(content | {"name": "x" * 10**8}).encode()
        return as_json(rng, changed(rng, content))

    def feed(self, data: bytes) -> None:
        from inspect_kd.datasets.images import as_rgb8
        from inspect_kd.datasets.view import View
        from inspect_kd.export.card import ArtifactCard, card_facts

        card = ArtifactCard.parse(data.decode("utf-8", "replace"), "a.onnx")
        View(size=card.size, tile=card.tile, overlap=card.overlap)
        for category in (None, *card.categories):
            limits = card.calibration.limits_for(category)
            limits.thresholds.decide(0.5)
            limits.sentence().encode()
        as_rgb8(np.zeros((2, 2), np.uint16), bits=card.bits)
        json.dumps(card_facts(card), ensure_ascii=False).encode()
        ArtifactCard.parse(card.dump(), "a.onnx")


class Calibrations(Target):
    """A run's calibration.json."""

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        from tests.fuzzing.graphs import card

        self.seed = json.dumps(card().calibration.to_json())

    def make(self, rng: Random) -> bytes:
        return as_json(rng, changed(rng, json.loads(self.seed)))

    def feed(self, data: bytes) -> None:
        from inspect_kd.calibrate import read_calibration

        path = self.room / "calibration.json"
        path.write_bytes(data)
        calibration = read_calibration(path)
        calibration.limits_for(None).sentence()
        calibration.to_json()


class Onnx(Target):
    """An artifact through the whole Inspector, in ONNX Runtime, without the quarantine: what that one has to stand."""

    native = True
    suffix = ".onnx"

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        from tests.fuzzing import graphs

        self.graphs = graphs
        self.seeds = [graphs.artifact().SerializeToString()]
        given = os.environ.get(ARTIFACT)
        self.large = Path(given).resolve().read_bytes() if given else b""
        self._lay(room)
        self.image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)

    def warm_up(self) -> None:
        self.feed(self.seeds[0])

    def _lay(self, room: Path) -> None:
        """Ways that lead to the bait, for tensors that lie elsewhere: relative places count from the working directory."""
        secret = self.bait / "secret.bin"
        (room / "folder").symlink_to(self.bait)
        (room / "link.bin").symlink_to(secret)
        (room / "hard.bin").hardlink_to(secret)
        os.chdir(room)

    def make(self, rng: Random) -> bytes:
        if self.large and rng.random() < 0.01:
            return damaged(rng, self.large, self.seeds[0])
        return self.graphs.hostile(rng, self.seeds, self.room)

    def feed(self, data: bytes) -> None:
        from inspect_kd.inspector import Inspector

        path = self.room / f"a{self.suffix}"
        path.write_bytes(data)
        inspector = Inspector(path, quarantine=False)
        inspector.look(np.zeros((1, inspector.size, inspector.size, 3), np.uint8))
        inspector(self.image)


class Openvino(Onnx):
    """The same in OpenVINO."""

    suffix = ".openvino.onnx"


class Quarantine(Onnx):
    """The same artifacts through the door that people use: half a second each."""

    native = False

    def feed(self, data: bytes) -> None:
        from inspect_kd import quarantine
        from inspect_kd.inspector import Inspector

        os.environ["INSPECT_KD_CACHE"] = str(self.room / "cache")
        quarantine.SECONDS, quarantine.MEGABYTES = 5, 1024
        path = self.room / f"a{self.suffix}"
        path.write_bytes(data)
        Inspector(path)(self.image)


class QuarantineOpenvino(Quarantine):
    suffix = ".openvino.onnx"


class Images(Target):
    """Pictures of every format."""

    # The largest that are read are honest work: two hundred million pixels.
    cpu_s = 20

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        from tests.fuzzing import pictures

        self.pictures, self.seeds = pictures, pictures.seeds()

    def make(self, rng: Random) -> bytes:
        return self.pictures.lying(rng, self.seeds)

    def feed(self, data: bytes) -> None:
        from inspect_kd.datasets.images import decode_image, image_facts, read_mask

        path = self.room / "a.png"
        path.write_bytes(data)
        image_facts(path)
        image = decode_image(data, "a.png", bits=12)
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        if image.size < 10**6:
            read_mask(path, size=(24, 20))


class Yaml(Target):
    """Texts that are YAML, or nearly."""

    kind: zoo.Kind

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        files = sorted(zoo.room(self.kind).glob("*.yaml"))
        self.texts = [path.read_text(encoding="utf-8") for path in files]
        self.contents = [yaml.safe_load(text) for text in self.texts]

    def make(self, rng: Random) -> bytes:
        match rng.randrange(10):
            case 0 | 1 | 2:
                return damaged(rng, rng.choice(self.texts).encode(), rng.choice(self.texts).encode())
            case 3:
                key = rng.choice(list(rng.choice(self.contents)))
                return f"{rng.choice(self.texts)}\n{key}: {rng.choice(TRICKS)}\n".encode("utf-8", "surrogatepass")
            case 4:
                text = rng.choice(self.texts)
                return text.replace(": ", f": {rng.choice(TRICKS)}\n#", 1).encode("utf-8", "surrogatepass")
            case 5:
                return bomb(rng)
        content = changed(rng, copy.deepcopy(rng.choice(self.contents)))
        return yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")

    def _written(self, data: bytes) -> str:
        path = self.room / "a.yaml"
        path.write_bytes(data)
        return str(path)


TRICKS = (
    *("!!python/object/apply:os.system [id]", "!!python/name:os.system", "!!binary x", "!!set {a, b}", "!!omap [a: 1]"),
    *("2001-13-45", "2001-01-01", "!!timestamp x", "!!int x", "!!float x", "!!bool x", "!!null x", "190:20:30", "0o9"),
    *("[" * 5000, "{a: " * 5000, "&a [*a]", "*nothing", "&x {<<: *x}", "{<<: 1}", "? [a]\n: b", "|", ">9", "%YAML 9"),
    *('"\\ud800"', '"\\x00"', "\ufeff", ".nan", "-.inf", "1e999", "9" * 5000, "0x" + "f" * 5000, "- a", "\t", "~: 1"),
    *("{1: 2}", "{null: 2}", "{[1]: 2}", "{2001-01-01: 2}", "{true: 2}", "x" * 10**6, "[[[[[[[[[[]]]]]]]]]]"),
)


def bomb(rng: Random) -> bytes:
    """Nine lines that mean a billion words."""
    lines = ['a0: &a0 ["x","x","x","x","x","x","x","x","x"]']
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, rng.choice((3, 9, 30)))]
    key = rng.choice(("student", "about", "name", "fit", "categories", "source", "accept"))
    return "\n".join([*lines, f"{key}: *a{len(lines) - 1}", "name: x"][rng.randrange(2) :]).encode()


class Recipes(Yaml):
    """Recipes, and what `--set` may say on top."""

    kind = "models"

    def feed(self, data: bytes) -> None:
        from inspect_kd.config import load_recipe

        rng = Random(hashlib.sha256(data).digest())
        sections = ("fit.steps", "student.x.y.z", "data", "name", "fit", "", ".", "a" * 500, "student.compare")
        overrides = [f"{rng.choice(sections)}={rng.choice((*TRICKS, '3'))}"] if rng.random() < 0.3 else []
        recipe = load_recipe(self._written(data), overrides)
        recipe.digest()
        recipe.to_yaml().encode()
        assert Path(recipe.name).name == recipe.name, "a run's folder gets the recipe's name"


class Deployments(Yaml):
    """Deployment recipes."""

    kind = "export"

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        import inspect_kd.export.deploy  # noqa: F401  (torch opens files when it is imported, which no input asked for)

    def feed(self, data: bytes) -> None:
        from inspect_kd.export.deploy import load_deployment

        load_deployment(self._written(data))


class Manifests(Yaml):
    """Manifests of data sets, with a data set where one of them points to."""

    kind = "datasets"

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        from tests.trees import BUILDERS

        os.environ["INSPECT_KD_DATA"] = str(room / "data")
        BUILDERS["folder"](room / "data" / "mine")
        self.contents += [content | {"root": "mine", "layout": None} for content in self.contents]

    def feed(self, data: bytes) -> None:
        from inspect_kd.datasets import open_dataset
        from inspect_kd.datasets.manifest import load_manifest

        path = self._written(data)
        manifest = load_manifest(path)
        manifest.title.encode()
        folder = Path(os.path.normpath(manifest.folder()))
        home = zoo.data_home()
        assert Path(manifest.root).is_absolute() or (folder != home and folder.is_relative_to(home)), folder
        if manifest.source.drawn is None:
            open_dataset(path).digest


class Trees(Target):
    """Folders in each layout, with files renamed, torn or replaced by links, and tables that lie."""

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        from tests.trees import BUILDERS

        self.seeds = {name: room / "seeds" / name for name in BUILDERS}
        for name, folder in self.seeds.items():
            BUILDERS[name](folder)
        self.files = {
            name: sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            for name, folder in self.seeds.items()
        }

    def make(self, rng: Random) -> bytes:
        """A description of the tree: the layout that it began as, and what was done to it."""
        name = rng.choice(list(self.seeds))
        harms = [self._harm(rng, name) for _ in range(rng.choice((1, 1, 2, 4)))]
        return json.dumps({"layout": name, "harms": harms, "group": rng.choice((None, None, r"(\d)", "("))}).encode()

    def _harm(self, rng: Random, name: str) -> list[Any]:
        file = rng.choice(self.files[name])
        tables = [each for each in self.files[name] if each.endswith(".csv")]
        if tables and rng.random() < 0.7:
            table = (self.seeds[name] / tables[0]).read_bytes()
            return ["write", tables[0], _table(rng, table, self.bait).decode("latin-1")]
        if name == "csv" and file in tables:
            return ["folder", "images"]  # the table itself is named by a person, who may name a link
        other = rng.choice(self.files[name])
        odd = ("ground_truth", "a\nb.png", "\udcff.png", "x" * 240 + ".png", ".png", "ok.png", "a_mask_mask.png")
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
                return ["move", file, str(Path(file).with_name(rng.choice(odd)))]
            case 6:
                return ["write", file, damaged(rng, (self.seeds[name] / other).read_bytes()).decode("latin-1")]
            case 7:
                return ["link", rng.choice((".", "split_csv", "test", "train")), str(self.bait)]
        return ["move", file, other]

    def feed(self, data: bytes) -> None:
        from inspect_kd.datasets import every_image, every_sample, open_dataset
        from inspect_kd.datasets.check import check
        from inspect_kd.datasets.images import read_image
        from inspect_kd.types import Nobody

        told = json.loads(data)
        root = self.room / "tree"
        _remove(root)
        shutil.copytree(self.seeds[told["layout"]], root, copy_function=os.link)
        for harm in told["harms"]:
            _harm(root, *harm)
        where = root / "parts.csv" if told["layout"] == "csv" else root
        try:
            opened = open_dataset(where, group=told["group"])
            opened.digest
            for found in check(opened, Nobody()):
                assert found.text
        finally:
            for look in (every_sample, every_image):
                try:
                    for each in look(root):
                        read_image(getattr(each, "image", each))
                except BadInput:
                    continue


def _table(rng: Random, table: bytes, bait: Path) -> bytes:
    """A CSV with cells that lead elsewhere, rows that end early, quotes that never do."""
    rows = [row.split(b",") for row in table.splitlines()]
    places = (
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
                row[rng.randrange(len(row))] = rng.choice(places).encode()
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
    return damaged(rng, text, rounds=2) if rng.random() < 0.4 else text


def _harm(root: Path, kind: str, place: str, what: str = "") -> None:
    """Do it, as far as earlier harm has left something to do it to."""
    path = root / place
    if kind == "move":
        if path.is_file():
            (root / what).parent.mkdir(parents=True, exist_ok=True)
            if not (root / what).is_dir():
                path.rename(root / what)
        return
    if path == root or not path.resolve().is_relative_to(root.resolve()):
        return
    _remove(path)
    if not path.parent.is_dir():
        return
    if kind == "link":
        path.symlink_to(what)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(what.encode("latin-1"))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Signatures(Target):
    """Signatures and public keys; an artifact that was changed is never accepted."""

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        from inspect_kd import signing

        self.artifact, private = room / "a.onnx", room / "k.pem"
        self.content = b"an artifact" * 10
        self.artifact.write_bytes(self.content)
        self.public = room / "k.pub"
        if not private.exists():
            signing.make_keys(private, None)
        self.key = self.public.read_bytes()
        self.seed = json.loads(signing.sign(self.artifact, private).read_bytes())

    def make(self, rng: Random) -> bytes:
        part = rng.randrange(4)
        if part == 0:
            content = damaged(rng, self.content, rounds=1)
            return b"artifact\n" + content
        if part == 1:
            return b"key\n" + damaged(rng, self.key, rounds=3)
        return b"signature\n" + as_json(rng, changed(rng, dict(self.seed)))

    def feed(self, data: bytes) -> None:
        from inspect_kd.signing import signature_of, signers, verify

        part, _, content = data.partition(b"\n")
        files = {b"artifact": self.content, b"key": self.key, b"signature": json.dumps(self.seed).encode()}
        files[part] = content
        self.artifact.write_bytes(files[b"artifact"])
        self.public.write_bytes(files[b"key"])
        signature_of(self.artifact).write_bytes(files[b"signature"])
        _, signature = verify(self.artifact, signers(self.public))
        assert files[b"artifact"] == self.content, "a changed artifact was accepted"
        assert signature.signed == self.seed["signed"], "a changed statement was accepted"


class Archives(Target):
    """Archives of data sets, zip and tar."""

    def __init__(self, room: Path) -> None:
        super().__init__(room)
        self.seeds = [
            _zip(method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        ]
        self.seeds += [_tar(packing) for packing in ("", "gz", "bz2", "xz")]

    def make(self, rng: Random) -> bytes:
        if rng.random() < 0.8:
            return damaged(rng, rng.choice(self.seeds), rng.choice(self.seeds))
        names = (
            "../x",
            "/x",
            "a/../../x",
            "..\\x",
            "a\x00b",
            "x" * 300,
            "a/b",
            "C:\\x",
            "",
            "a\n",
            "./../../outside/secret.png",
        )
        if rng.random() < 0.5:
            return _zip(zipfile.ZIP_DEFLATED, rng.choice(names))
        kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.REGTYPE, tarfile.DIRTYPE)
        return _tar(rng.choice(("", "gz")), rng.choice(names), rng.choice(kinds))

    def feed(self, data: bytes) -> None:
        from inspect_kd.datasets.fetch import unpack
        from inspect_kd.types import Nobody

        packed, to = self.room / "packed", self.room / "unpacked"
        packed.write_bytes(data)
        _remove(to)
        to.mkdir()
        before = sorted(path.name for path in self.room.iterdir())
        unpack(packed, to, Nobody())
        assert sorted(path.name for path in self.room.iterdir()) == before, "something was written beside the folder"
        assert not any(path.is_symlink() for path in to.rglob("*"))


def _zip(method: int, name: str = "good/0.png") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo(name), b"picture" * 30, compress_type=method)
        archive.writestr("bad/1.png", b"other" * 30)
    return file.getvalue()


def _tar(packing: str, name: str = "good/0.png", kind: bytes = tarfile.REGTYPE) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=f"w:{packing}") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "../../outside/secret.png"
        member.size = 210 if kind == tarfile.REGTYPE else 0
        archive.addfile(member, io.BytesIO(b"picture" * 30))
    return file.getvalue()


TARGETS: dict[str, type[Target]] = {
    "wire": Wire,
    "card": Card,
    "calibration": Calibrations,
    "images": Images,
    "recipes": Recipes,
    "deployments": Deployments,
    "manifests": Manifests,
    "layouts": Trees,
    "signatures": Signatures,
    "archives": Archives,
    "onnx": Onnx,
    "openvino": Openvino,
    "quarantine": Quarantine,
    "quarantine_openvino": QuarantineOpenvino,
}
