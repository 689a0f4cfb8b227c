"""Strict recipe models: an unknown key is an error that names its neighbours; what ran is dumped in full with the run.

Builders turn these into plain arguments; no module of the model ever sees a recipe.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from inspect_kd import zoo
from inspect_kd.errors import BadInput, InspectKDError, UsageError
from inspect_kd.former_names import rename_key, rename_recipe_keys
from inspect_kd.plain_file import read_plain_file

T = TypeVar("T")
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
"""Of a recipe or a data set. It becomes a folder's, so it is neither `.` nor `..`."""
LARGEST_YAML, DEEPEST = 2**20, 32
PLAIN = {"str", "int", "float", "bool", "null", "seq", "map"}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Data(Strict):
    """What the student sees."""

    size: int = Field(256, ge=64, le=1024, multiple_of=2)
    """Side of the square that the student sees: the whole image resized to it, or a tile."""
    tile: int | None = Field(None, ge=32, le=8192)
    """For large images with small defects: side, in the image's own pixels, of overlapping tiles. None squashes the whole."""
    overlap: float = Field(0.25, ge=0, le=0.75)
    """Share of a tile that its neighbour sees too; seams are blended over it."""
    calibration: float = Field(0.2, gt=0, lt=0.6)
    """Share of the sound training parts that is held out for the thresholds."""
    validation: float = Field(0.1, gt=0, lt=0.4)
    """Share held out for the early stop."""
    test: float = Field(0.2, ge=0, lt=0.6)
    """Share of sound parts held out as a test, where the data set brings no test split."""
    group: str | None = None
    """Regular expression over file names; what its first group captures never straddles two splits."""
    categories: tuple[str, ...] = ()
    """Only these; empty means all."""
    bits: int | None = Field(None, ge=1, le=16)
    """Significant bits of images stored with 16; None means all of them."""
    flip: Literal["none", "horizontal", "both"] = "horizontal"
    """Random mirroring at training. None where a mirrored part is a defective part."""
    cache_mb: int = Field(1024, ge=0)
    """Memory for images already resized."""


class Fit(Strict):
    """How long and how fast."""

    steps: int = Field(400, ge=1)
    batch: int = Field(8, ge=1)
    """Images a step, over all devices."""
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    warm_up: Share = 0.1
    """Share of the steps in which the learning rate rises."""
    schedule: Literal["cosine", "step"] = "cosine"
    """How it falls afterwards: along a cosine, or to a tenth after four fifths of the steps."""
    denoise: Share = 0.0
    """Share of a batch that carries a synthetic defect which the student must rebuild without."""
    evaluate_every: int = Field(50, ge=1)
    patience: int = Field(4, ge=1)
    """Evaluations without a wider synthetic gap after which training stops."""
    checkpoint_every: int = Field(50, ge=1)
    seed: int = Field(0, ge=0)


class Teach(Strict):
    """How a teacher studies sound parts and drawn defects."""

    parts: int | None = Field(None, ge=1)
    """Few-data mode: only so many sound parts of each category. None takes all."""
    variants: int = Field(4, ge=2)
    """How often each sound part is shown, every second time damaged."""
    labelled: str | None = None
    """A data set whose outlined defects are studied beside the drawn ones: a few real masks, where a factory has them."""
    epochs: int = Field(15, ge=0)
    batch: int = Field(8, ge=1)
    learning_rate: float = Field(1e-3, gt=0)


class StageConfig(Strict):
    """How long a stage lasts and how fast it learns."""

    steps: int = Field(0, ge=0)
    """0 leaves the stage out."""
    learning_rate: float = Field(1e-3, gt=0)


class Distill(Strict):
    """What a student learns after it can rebuild sound parts (the fit, S0)."""

    teachers: tuple[str, ...] = ()
    """Recipes of teachers, or folders of their runs. One that has not studied this data yet studies it first."""
    unlabelled: str | None = None
    """A folder of images from the line that nobody has looked at: teachers look at them too."""
    labelled: str | None = None
    """A data set with real defects, outlined or not."""
    start: str | None = None
    """A complete run of the same student, whose fit is taken over in the place of an own one."""
    align: StageConfig = StageConfig()
    """S1: the heads' tokens come to see what the teachers see."""
    supervise: StageConfig = StageConfig()
    """S2: the label head learns drawn defects, and real ones where there are any."""
    refine: StageConfig = StageConfig()
    """S3: the imitation head follows the teachers."""
    batch: int = Field(16, ge=4)
    variants: int = Field(6, ge=2)
    """How often each sound part is shown, every second time damaged; teachers look at each of them once."""
    relation_weight: float = Field(0.5, ge=0)
    """Weight of the relations between tokens, beside 1 for the tokens themselves (S1)."""
    teacher_weights: Literal["learned", "equal"] = "learned"
    """Weigh teachers at each place by how they do on drawn defects, or take all at their word."""
    weight_temperature: float = Field(0.1, gt=0)
    contrast_weight: float = Field(0.0, ge=0)
    """Weight of the pull to the teachers against the student's own earlier answer (S3)."""
    tune_decoder: bool = False
    """The last part of the decoder moves along (S3): forty times the work for a step."""
    denoising_weight: float = Field(0.0, ge=0)
    """Weight of the denoising loss: features rebuilt of a damaged part must match the teachers' of its sound twin (S3, `tune_decoder`)."""
    blend: tuple[float, float, float] = (1.0, 3.0, 0.0)
    """What discrepancy (its rarest heat on held-out sound parts is 1), label head and imitation head (chances, 0 to 1) count."""
    score_blend: tuple[float, float, float] = (1.0, 0.5, 0.0)
    """The same for the score. Heads say best where: what they take for damage on an unusual sound part must not stop it."""
    max_samples: int = Field(3000, ge=1)
    """Drawn parts at most, and unlabelled ones: what is known of each is kept in memory, a third of a megabyte at size 256."""

    @property
    def stages(self) -> dict[str, StageConfig]:
        """Those that are run, in their order."""
        every = {"align": self.align, "supervise": self.supervise, "refine": self.refine}
        return {name: stage for name, stage in every.items() if stage.steps}

    @model_validator(mode="after")
    def _taught_by_somebody(self) -> Distill:
        taught = bool(self.align.steps or self.refine.steps)
        if taught and not self.teachers:
            raise ValueError("align and refine need `teachers:`; without any set their steps to 0")
        if self.teachers and not taught:
            raise ValueError("teachers: nobody would listen; set refine.steps, for example to 600")
        if self.refine.steps and not self.blend[2]:
            raise ValueError("blend: the imitation head would count nothing; set them to [1, 1.5, 1.5], for example")
        if self.unlabelled and not self.teachers:
            raise ValueError("unlabelled: parts without labels say something only where `teachers:` look at them")
        if self.denoising_weight and self.refine.steps and not self.tune_decoder:
            raise ValueError("denoising_weight: what is rebuilt stays as it is in S3; set tune_decoder to true")
        if self.labelled and not self.supervise.steps:
            raise ValueError("labelled: no stage learns labels; set supervise.steps, for example to 1500")
        return self


class CalibrationConfig(Strict):
    """How many sound parts may be stopped."""

    reject_rate: float = Field(0.01, gt=0, lt=1)
    """At most this share of sound parts is NG."""
    reinspect_rate: float = Field(0.05, gt=0, lt=1)
    """At most this share of sound parts is RE-INSPECT or NG."""


class Recipe(Strict):
    """What to train."""

    name: Name
    about: str = ""
    student: dict[str, Any] = {}
    """`build:` names the file in `inspect_kd/models/students/`; the rest is that file's `Config`."""
    teacher: dict[str, Any] = {}
    """In the place of a student: a teacher that is trained alone; its file is in `inspect_kd/models/teachers/`."""
    profile: Literal["research", "production"] = "research"
    """`production` refuses weights whose licence is not on the allow list (docs/licences.md)."""
    data: Data = Data()
    fit: Fit = Fit()
    teach: Teach = Teach()
    distill: Distill = Distill()
    calibration: CalibrationConfig = CalibrationConfig()
    export: tuple[str, ...] = ("onnx",)
    """Deployments made at the end of the training; `onnx` is always one, the report and the line open it."""

    @model_validator(mode="after")
    def _one_model(self) -> Recipe:
        if bool(self.student) == bool(self.teacher):
            raise ValueError("a recipe has a `student:` or a `teacher:`, one of them")
        if "onnx" not in self.export:
            raise ValueError("export: `onnx` must be among them, the report and the line open that file")
        if self.student and self.data.size % 32:
            raise ValueError(f"data.size: a student takes multiples of 32, not {self.data.size}")
        if self.distill.stages and not self.student.get("head_width"):
            raise ValueError("distill: its stages teach the student's heads; set student.head_width, for example to 32")
        distill = self.distill
        if self.teacher and (distill.stages or distill.start or distill.labelled):
            raise ValueError("distill: a teacher is not distilled; its own real defects are `teach.labelled`")
        if self.data.tile and (distill.teachers or distill.labelled):
            raise ValueError(
                "data.tile: a student that sees tiles learns drawn defects only; leave teachers, labelled and unlabelled out"
            )
        return self

    @property
    def family(self) -> str:
        """Where its model's file lies, below `inspect_kd`."""
        return "models.students" if self.student else "models.teachers"

    def digest(self, without: set[str] | None = None) -> str:
        """Identity of the resolved recipe, or of all but the sections named."""
        content = self.model_dump(mode="json", exclude=without)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML as far as recipes need it: text, numbers, lists, mappings. What is left out is where hostile files live."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            # Nine lines of aliases mean a billion words.
            raise _refusal("an alias (*name); write the value out", event)
        self.depth += 1
        if self.depth > DEEPEST:
            raise _refusal(f"nested more than {DEEPEST} deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is None:
            return None
        kind = node.tag.rpartition(":")[2]
        if kind not in PLAIN:
            raise _refusal(f"a value of type {node.tag}; put text that looks like a date in quotes", node)
        if kind in ("int", "float") and ":" in node.value:
            # YAML 1.1 reads 1:30 as a number to the base 60, and PyYAML takes quadratic time for a long one.
            raise _refusal(f"a number with colons ({node.value[:20]}); put it in quotes", node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if not all(isinstance(key, str) for key in mapping):
            raise _refusal("a key that is not text", node)
        if len(mapping) < len(node.value):
            raise _refusal("a key that stands twice", node)
        return mapping


def _refusal(what: str, where: Any) -> yaml.YAMLError:
    """`where`: a node or an event."""
    return yaml.MarkedYAMLError(problem=what, problem_mark=where.start_mark)


class _Dumper(yaml.SafeDumper):
    """Writes what is there twice twice: the loader above reads no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def parse_yaml(text: str, where: str) -> Any:
    """What a text says; whatever is wrong with it is one line that names the place."""
    try:
        text.encode()
        content = yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader that can do less)
        # A half of a character can also be written as an escape, and no file could hold it.
        json.dumps(content, ensure_ascii=False).encode()
    except Exception as error:
        # Beside its own errors PyYAML lets out whatever int(), float() and others say of a value.
        raise UsageError(f"{where}: not readable as YAML: {' '.join(str(error).split())}") from error
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that must hold a mapping."""
    try:
        text = read_plain_file(path, "YAML file", LARGEST_YAML).decode()
    except BadInput as error:
        raise UsageError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected `key: value` lines, found {type(content).__name__}")
    return content


def load_recipe(model: str, overrides: list[str] | None = None) -> Recipe:
    """The recipe for a name or a path, with `section.key=value` overrides applied."""
    path = zoo.find("models", model)
    content = rename_recipe_keys(read_yaml(path))
    for override in overrides or []:
        _apply(content, override)
    return fill(Recipe, content, where=str(path))


def read_recipe(path: Path) -> Recipe:
    """The resolved recipe in a run's folder."""
    return fill(Recipe, rename_recipe_keys(read_yaml(path)), where=str(path))


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override}: write it as section.key=value, for example fit.steps=200")
    present, parsed = rename_key(key, parse_yaml(value, f"--set {key}"))
    *sections, last = present.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise UsageError(f"--set {override}: '{section}' is not a section")
    content[last] = parsed


def fill(model: type[T], content: dict[str, Any], *, where: str, fault: type[InspectKDError] = UsageError) -> T:
    """Build a pydantic model or a dataclass from a mapping; errors name the key, the reason and the nearest known key.

    `fault`: the error's class, BadInput for what no person writes by hand.
    """
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        known = set(getattr(model, "__dataclass_fields__", {}))
        for key in content:
            if key not in known:
                raise fault(f"{where}: unknown key '{key}'{_nearest(key, known)}")
    try:
        return TypeAdapter(model).validate_python(content)
    except ValidationError as error:
        raise fault("\n".join(_explain(where, model, problem) for problem in error.errors())) from None


def _explain(where: str, model: type[Any], problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key '{key}'{_nearest(key, _keys(model))}"
    if problem["type"] == "value_error":
        # A sentence of our own, about several keys at once: the whole section behind it would drown it.
        return f"{where}: {problem['ctx']['error']}"
    return f"{where}: {key}: {problem['msg'][0].lower()}{problem['msg'][1:]} (found {problem['input']!r})"


def _keys(model: type[Any], prefix: str = "") -> set[str]:
    keys: set[str] = set()
    for name, field in getattr(model, "model_fields", {}).items():
        keys.add(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= _keys(field.annotation, f"{prefix}{name}.")
    return keys


def _nearest(key: str, known: set[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(sorted(known))}"
