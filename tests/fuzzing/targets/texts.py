"""Recipes, deployments and manifests: valid and invalid YAML."""

from __future__ import annotations

import copy
import hashlib
import os
from pathlib import Path
from random import Random

import yaml

from inspect_kd import zoo
from tests.fuzzing.mutate import mutate_bytes, mutate_tree
from tests.fuzzing.targets.target import Target


class Yaml(Target):
    """Valid and invalid YAML."""

    kind: zoo.ZooKind

    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        files = sorted(zoo.folder_of(self.kind).glob("*.yaml"))
        self.texts = [path.read_text(encoding="utf-8") for path in files]
        self.contents = [yaml.safe_load(text) for text in self.texts]

    def make(self, rng: Random) -> bytes:
        match rng.randrange(10):
            case 0 | 1 | 2:
                return mutate_bytes(rng, rng.choice(self.texts).encode(), rng.choice(self.texts).encode())
            case 3:
                key = rng.choice(list(rng.choice(self.contents)))
                return f"{rng.choice(self.texts)}\n{key}: {rng.choice(HOSTILE_YAML)}\n".encode("utf-8", "surrogatepass")
            case 4:
                text = rng.choice(self.texts)
                return text.replace(": ", f": {rng.choice(HOSTILE_YAML)}\n#", 1).encode("utf-8", "surrogatepass")
            case 5:
                return alias_bomb(rng)
        content = mutate_tree(rng, copy.deepcopy(rng.choice(self.contents)))
        return yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")

    def _write(self, data: bytes) -> str:
        path = self.sandbox / "a.yaml"
        path.write_bytes(data)
        return str(path)


HOSTILE_YAML = (
    *("!!python/object/apply:os.system [id]", "!!python/name:os.system", "!!binary x", "!!set {a, b}", "!!omap [a: 1]"),
    *("2001-13-45", "2001-01-01", "!!timestamp x", "!!int x", "!!float x", "!!bool x", "!!null x", "190:20:30", "0o9"),
    *("[" * 5000, "{a: " * 5000, "&a [*a]", "*nothing", "&x {<<: *x}", "{<<: 1}", "? [a]\n: b", "|", ">9", "%YAML 9"),
    *('"\\ud800"', '"\\x00"', "\ufeff", ".nan", "-.inf", "1e999", "9" * 5000, "0x" + "f" * 5000, "- a", "\t", "~: 1"),
    *("{1: 2}", "{null: 2}", "{[1]: 2}", "{2001-01-01: 2}", "{true: 2}", "x" * 10**6, "[[[[[[[[[[]]]]]]]]]]"),
)


def alias_bomb(rng: Random) -> bytes:
    """Make a few lines of aliases that expand to as many as 9**30 words."""
    lines = ['a0: &a0 ["x","x","x","x","x","x","x","x","x"]']
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, rng.choice((3, 9, 30)))]
    key = rng.choice(("student", "about", "name", "fit", "categories", "source", "accept"))
    return "\n".join([*lines, f"{key}: *a{len(lines) - 1}", "name: x"][rng.randrange(2) :]).encode()


class Recipes(Yaml):
    """Recipes with `--set` overrides."""

    kind = "models"

    def feed(self, data: bytes) -> None:
        from inspect_kd.config import load_recipe

        rng = Random(hashlib.sha256(data).digest())
        keys = ("fit.steps", "student.x.y.z", "data", "name", "fit", "", ".", "a" * 500, "student.compare")
        overrides = [f"{rng.choice(keys)}={rng.choice((*HOSTILE_YAML, '3'))}"] if rng.random() < 0.3 else []
        recipe = load_recipe(self._write(data), overrides)
        recipe.digest()
        recipe.to_yaml().encode()
        assert Path(recipe.name).name == recipe.name, "a run's folder is named by its recipe"


class Deployments(Yaml):
    """Deployment recipes."""

    kind = "export"

    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        import inspect_kd.export.deploy  # noqa: F401  (importing torch opens files, which no input must be blamed for)

    def feed(self, data: bytes) -> None:
        from inspect_kd.export.deploy import load_deployment

        load_deployment(self._write(data))


class Manifests(Yaml):
    """Manifests of data sets; one of the data sets exists."""

    kind = "datasets"

    def __init__(self, sandbox: Path) -> None:
        super().__init__(sandbox)
        from tests.trees import BUILDERS

        os.environ["INSPECT_KD_DATA"] = str(sandbox / "data")
        BUILDERS["folder"](sandbox / "data" / "mine")
        self.contents += [content | {"root": "mine", "layout": None} for content in self.contents]

    def feed(self, data: bytes) -> None:
        from inspect_kd.datasets import open_dataset
        from inspect_kd.datasets.manifest import load_manifest

        path = self._write(data)
        manifest = load_manifest(path)
        manifest.title.encode()
        folder = Path(os.path.normpath(manifest.folder()))
        home = zoo.data_home()
        assert Path(manifest.root).is_absolute() or (folder != home and folder.is_relative_to(home)), folder
        if manifest.source.drawn is None:
            open_dataset(path).digest
