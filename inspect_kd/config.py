"""Recipes: strict models in which an unknown key is an error that suggests the nearest known one.

Builders turn recipes into plain arguments, so that models do not depend on recipes. A run stores its resolved recipe.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from inspect_kd import zoo
from inspect_kd.errors import BadInput, InspectKDError, UsageError
from inspect_kd.former_names import rename_key, rename_recipe_keys
from inspect_kd.plain_file import read_plain_file
from inspect_kd.strict_model import StrictModel

T = TypeVar("T")
DEFAULT_RECIPE, FALLBACK_RECIPE = "omni_ad", "embedded"
"""The fallback's encoder comes with the package."""
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
"""Name of a recipe or a data set. It becomes a folder's name, so it is neither `.` nor `..`."""
MAX_YAML_BYTES, MAX_DEPTH = 2**20, 32
# YAML tags that recipes may use.
PLAIN_TYPES = {"str", "int", "float", "bool", "null", "seq", "map"}


class Data(StrictModel):
    """The images, their resizing, and the split of the sound parts."""

    size: int = Field(256, ge=64, le=1024, multiple_of=2)
    """Side of the model's square input: the whole image is resized to it, or a tile."""
    align: Literal["none", "silhouette", "template", "auto"] = "auto"
    """Find the part in each image and turn it upright: `silhouette` for single parts on a plain background, `template` for boards
    and prints. `auto` measures on the sound parts whether and how; `none` leaves images as they are."""
    tile: Annotated[int, Field(ge=32, le=8192)] | Literal["auto"] | None = "auto"
    """Side of overlapping tiles in pixels of the image, for large images with small defects. `auto` chooses it from the image's
    size and the smallest defect; None resizes the whole image."""
    smallest_defect: int | None = Field(None, ge=1, le=8192)
    """Side in pixels of the smallest defect that must be found, for `tile: auto`. None: 2 % of the image's shorter side."""
    zones: str | None = None
    """A YAML file of polygons, or a label image: places of the part that are ignored, or judged more or less strictly."""
    overlap: float = Field(0.25, ge=0, le=0.75)
    """Share of a tile that overlaps its neighbour; seams are blended over it."""
    calibration: float = Field(0.2, gt=0, lt=0.6)
    """Share of the sound training parts that is held out for the thresholds."""
    validation: float = Field(0.1, gt=0, lt=0.4)
    """Share of the sound training parts that is held out for early stopping."""
    test: float = Field(0.2, ge=0, lt=0.6)
    """Share of the sound parts that is held out for testing if the data set has no test split."""
    group: str | None = None
    """Regular expression for file names; images with equal text in its first group go into the same split."""
    categories: tuple[str, ...] = ()
    """Train on these categories; empty means all."""
    bits: int | None = Field(None, ge=1, le=16)
    """Significant bits of images that are stored with 16; None means all 16."""
    flip: Literal["none", "horizontal", "both"] = "horizontal"
    """Random mirroring in training. Choose `none` where a mirrored part is a defective part."""
    cache_mb: int = Field(1024, ge=0)
    """Memory for resized images, in megabytes."""


class Fit(StrictModel):
    """The fit (stage S0): the student learns to rebuild sound parts."""

    steps: int = Field(400, ge=1)
    """Steps of the optimizer at most; early stopping may end the fit sooner."""
    batch: int = Field(8, ge=1)
    """Images per step, over all devices."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak of the learning rate."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of AdamW, in the stages after the fit too."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient; a larger one is scaled down."""
    warm_up: Share = 0.1
    """Share of the steps in which the learning rate rises."""
    schedule: Literal["cosine", "step"] = "cosine"
    """How the learning rate falls afterwards: along a cosine, or to a tenth after four fifths of the steps."""
    denoise: Share = 0.0
    """Share of a batch that carries a synthetic defect, which the student must rebuild as sound."""
    evaluate_every: int = Field(50, ge=1)
    """Steps between two measurements of the synthetic gap."""
    patience: int = Field(4, ge=1)
    """The fit stops after this number of measurements without a wider synthetic gap."""
    checkpoint_every: int = Field(50, ge=1)
    """Steps between two checkpoints, from which `--resume` goes on."""
    seed: int = Field(0, ge=0)
    """Seed of the training and of the split of sound parts."""


class Teach(StrictModel):
    """How a teacher is trained on sound parts and synthetic defects."""

    parts: int | None = Field(None, ge=1)
    """Number of sound parts of each category; a few suffice for a quick teacher. None takes all."""
    variants: int = Field(4, ge=2)
    """Samples made from each sound part; every second one has a synthetic defect."""
    labelled: str | None = None
    """A data set with real defects and masks, which are learned beside the synthetic ones."""
    epochs: int = Field(15, ge=0)
    """Passes over all samples; 0 keeps a pretrained teacher unchanged, where its method allows that."""
    batch: int = Field(8, ge=1)
    """Samples per step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak of the learning rate."""


class StageConfig(StrictModel):
    """Length and learning rate of one stage after the fit."""

    steps: int = Field(0, ge=0)
    """Steps of the optimizer; 0 leaves the stage out."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak of the learning rate."""


class Distill(StrictModel):
    """The stages after the fit (S1 to S3): the student's heads learn from synthetic defects, labels and teachers."""

    teachers: tuple[str, ...] = ()
    """Recipes of teachers, or folders of their runs. A teacher without a run for this data is trained first."""
    unlabelled: str | None = None
    """A folder of images from the line without labels: the student learns what the teachers predict for them."""
    labelled: str | None = None
    """A data set with real defects, with or without masks."""
    start: str | None = None
    """A complete run of the same student: its fitted weights are reused, and only the later stages are trained."""
    align: StageConfig = StageConfig()
    """S1: the tokens of the heads learn to match the teachers' tokens."""
    supervise: StageConfig = StageConfig()
    """S2: the label head learns synthetic defects, and the real ones of `labelled`."""
    refine: StageConfig = StageConfig()
    """S3: the imitation head learns the teachers' heatmaps."""
    batch: int = Field(16, ge=4)
    """Samples per step."""
    variants: int = Field(6, ge=2)
    """Samples made from each sound part; every second one has a synthetic defect. Teachers predict each sample once."""
    relation_weight: float = Field(0.5, ge=0)
    """Weight of the loss on relations between tokens; the loss on the tokens themselves has weight 1 (S1)."""
    teacher_weights: Literal["learned", "equal"] = "learned"
    """Weigh teachers at each place by their reliability on synthetic defects, or all equally (S3)."""
    weight_temperature: float = Field(0.1, gt=0)
    """A lower temperature prefers the more reliable teacher more strongly."""
    contrast_weight: float = Field(0.0, ge=0)
    """Weight of the contrastive loss: towards the teachers, away from the student's own earlier output (S3)."""
    tune_decoder: bool = False
    """Also train the end of the decoder (S3): a step then takes forty times as long."""
    denoising_weight: float = Field(0.0, ge=0)
    """Weight of the denoising loss: features rebuilt from a synthetic defect must match the teachers' for the sound original (S3,
    `tune_decoder`)."""
    blend: tuple[float, float, float] = (1.0, 3.0, 0.0)
    """Weights in the map of the discrepancy (scaled to 1 at its highest on held-out sound parts), the label head and the
    imitation head (probabilities, 0 to 1)."""
    score_blend: tuple[float, float, float] = (1.0, 0.5, 0.0)
    """The same weights in the score. Heads count less here: they locate defects well, but may mark unusual sound parts."""
    max_samples: int = Field(3000, ge=1)
    """Largest number of samples of sound training parts, and of unlabelled images; each needs a third of a megabyte at size 256."""

    @property
    def stages(self) -> dict[str, StageConfig]:
        """The stages that have steps, in their order."""
        stages = {"align": self.align, "supervise": self.supervise, "refine": self.refine}
        return {name: stage for name, stage in stages.items() if stage.steps}

    @model_validator(mode="after")
    def _check_stages(self) -> Distill:
        uses_teachers = bool(self.align.steps or self.refine.steps)
        if uses_teachers and not self.teachers:
            raise ValueError("align and refine need `teachers:`; without teachers set their steps to 0")
        if self.teachers and not uses_teachers:
            raise ValueError("teachers are set but no stage uses them: set refine.steps, for example to 600")
        if self.refine.steps and not self.blend[2]:
            raise ValueError(
                "blend: the imitation head has weight 0, so refine has no effect; set it to [1, 1.5, 1.5], for example"
            )
        if self.unlabelled and not self.teachers:
            raise ValueError(
                "unlabelled: the student learns what teachers predict for unlabelled images; set `teachers:`"
            )
        if self.denoising_weight and self.refine.steps and not self.tune_decoder:
            raise ValueError("denoising_weight: it needs a decoder that is trained in S3; set tune_decoder to true")
        if self.labelled and not self.supervise.steps:
            raise ValueError("labelled: no stage uses labels; set supervise.steps, for example to 1500")
        return self


class CalibrationConfig(StrictModel):
    """Largest shares of sound parts that the thresholds may stop."""

    reject_rate: float = Field(0.01, gt=0, lt=1)
    """Share of sound parts that are NG, at most."""
    reinspect_rate: float = Field(0.05, gt=0, lt=1)
    """Share of sound parts that are RE-INSPECT or NG, at most."""


class Recipe(StrictModel):
    """What to train, and how."""

    name: Name
    about: str = ""
    """One sentence for `inspect-kd ls models`."""
    student: dict[str, Any] = Field(default_factory=dict)
    """`build:` names a file in `inspect_kd/models/students/`; the other keys fill that file's `Config`."""
    teacher: dict[str, Any] = Field(default_factory=dict)
    """A teacher in the place of a student; `build:` names a file in `inspect_kd/models/teachers/`."""
    profile: Literal["research", "production"] = "research"
    """`production` refuses weights whose licence is not on the allow list (docs/licences.md)."""
    data: Data = Data()
    fit: Fit = Fit()
    teach: Teach = Teach()
    distill: Distill = Distill()
    calibration: CalibrationConfig = CalibrationConfig()
    export: tuple[str, ...] = ("onnx",)
    """Deployments that are exported after training; `onnx` must be among them."""

    @model_validator(mode="after")
    def _check_sections(self) -> Recipe:
        if bool(self.student) == bool(self.teacher):
            raise ValueError("a recipe has either a `student:` or a `teacher:`, one of them")
        if self.teacher and self.data.zones:
            raise ValueError("data.zones: only students have zones; leave it out of a teacher's recipe")
        if "onnx" not in self.export:
            raise ValueError(
                "export: `onnx` must be among them; the report and the inspection on the line use that file"
            )
        if self.student and self.data.size % 32:
            raise ValueError(f"data.size: {self.data.size} is not a multiple of 32, which a student needs")
        if self.distill.stages and not self.student.get("head_width"):
            raise ValueError("distill: its stages train the student's heads; set student.head_width, for example to 32")
        distill = self.distill
        if self.teacher and (distill.stages or distill.start or distill.labelled):
            raise ValueError("distill: only students are distilled; name a teacher's real defects in `teach.labelled`")
        if isinstance(self.data.tile, int) and (distill.teachers or distill.labelled):
            raise ValueError(
                "data.tile: a student of tiles learns from synthetic defects only; leave teachers, labelled and unlabelled out"
            )
        return self

    @property
    def family(self) -> str:
        """Name of the package, below `inspect_kd`, that builds the model."""
        return "models.students" if self.student else "models.teachers"

    def digest(self, without: set[str] | None = None) -> str:
        """Hash the resolved recipe; `without` names sections to leave out."""
        content = self.model_dump(mode="json", exclude=without)
        if "data" in content and content["data"]["zones"] is None:
            del content["data"]["zones"]  # recipes of versions without zones keep their digest
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """Reads the subset of YAML that recipes need: text, numbers, lists, mappings. Hostile files abuse the rest."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            # Nine lines of aliases can expand to a billion words.
            raise _refusal("an alias (*name); write the value out", event)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _refusal(f"nested more than {MAX_DEPTH} deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is None:
            return None
        kind = node.tag.rpartition(":")[2]
        if kind not in PLAIN_TYPES:
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
            raise _refusal("the same key twice", node)
        return mapping


def _refusal(problem: str, where: Any) -> yaml.YAMLError:
    """Return the error for what recipes must not hold; `where` is a YAML node or event with its place in the file."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


class _Dumper(yaml.SafeDumper):
    """Writes repeated values in full, because the loader refuses aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML; an error is one line that names the place."""
    try:
        text.encode()
        content = yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader that can do less)
        # An escape can also give a lone surrogate, which no file can hold.
        json.dumps(content, ensure_ascii=False).encode()
    except Exception as error:
        # PyYAML raises its own errors, and lets those of int(), float() and others through.
        raise UsageError(f"{where}: not readable as YAML: {' '.join(str(error).split())}") from error
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping."""
    try:
        text = read_plain_file(path, "YAML file", MAX_YAML_BYTES).decode()
    except BadInput as error:
        raise UsageError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not readable as YAML: {error}") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected `key: value` lines, found {type(content).__name__}")
    return content


def load_recipe(model: str, overrides: list[str] | None = None) -> Recipe:
    """Load a recipe by name or path, and apply `section.key=value` overrides."""
    path = zoo.find("models", model)
    content = rename_recipe_keys(read_yaml(path))
    for override in overrides or []:
        _apply_override(content, override)
    return fill(Recipe, content, where=str(path))


def default_recipe(has_weights: Callable[[str], bool]) -> str:
    """Return the name of the recipe for a training that names none: the default, or the fallback if the default's encoder has no weights.

    `has_weights` says whether an encoder's weights are available; only the caller knows whether it may ask a hub.
    """
    return DEFAULT_RECIPE if has_weights(str(load_recipe(DEFAULT_RECIPE).student["encoder"])) else FALLBACK_RECIPE


def read_recipe(path: Path) -> Recipe:
    """Read the resolved recipe of a run."""
    return fill(Recipe, rename_recipe_keys(read_yaml(path)), where=str(path))


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override}: write it as section.key=value, for example fit.steps=200")
    current_key, parsed = rename_key(key, parse_yaml(value, f"--set {key}"))
    *sections, last = current_key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise UsageError(f"--set {override}: '{section}' is not a section")
    content[last] = parsed


def fill(model: type[T], content: dict[str, Any], *, where: str, fault: type[InspectKDError] = UsageError) -> T:
    """Build a pydantic model or a dataclass from a mapping; errors name the key, the reason and the nearest known key.

    `fault`: class of the error; BadInput for files that programs write.
    """
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        known = set(getattr(model, "__dataclass_fields__", {}))
        for key in content:
            if key not in known:
                raise fault(f"{where}: unknown key '{key}'{_suggestion(key, known)}")
    try:
        return TypeAdapter(model).validate_python(content)
    except ValidationError as error:
        raise fault(*(_explain(where, model, problem) for problem in error.errors())) from None


def _explain(where: str, model: type[Any], problem: Any) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key '{key}'{_suggestion(key, _known_keys(model))}"
    if problem["type"] == "value_error":
        # Our own validators' messages are complete; the value would be a whole section.
        return f"{where}: {problem['ctx']['error']}"
    message = problem["msg"].removeprefix("Assertion failed, ")
    return f"{where}: {key}: {message[0].lower()}{message[1:]} (found {problem['input']!r})"


def _known_keys(model: type[Any], prefix: str = "") -> set[str]:
    keys: set[str] = set()
    for name, field in getattr(model, "model_fields", {}).items():
        keys.add(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= _known_keys(field.annotation, f"{prefix}{name}.")
    return keys


def _suggestion(key: str, known: set[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean '{nearest[0]}'?" if nearest else f"; known: {', '.join(sorted(known))}"
