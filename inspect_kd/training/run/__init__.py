"""A run: the folder of one training, how its models are built, saved and loaded, and where it was made."""

from inspect_kd.training.run.builders import build_student, build_teacher, resolve_recipe, sources_of
from inspect_kd.training.run.folder import (
    RUN_FOLDER_VARIABLE,
    RunFolder,
    choose_folder,
    hold_run,
    is_started_by_rank_zero,
)
from inspect_kd.training.run.load import FinishedRun, load_run
from inspect_kd.training.run.presentation_file import read_presentations, write_presentations
from inspect_kd.training.run.provenance import PACKAGES, commit, environment, now, read_environment
from inspect_kd.training.run.save import begin_run, save_model, write_json, write_manifest

__all__ = [
    "PACKAGES",
    "RUN_FOLDER_VARIABLE",
    "FinishedRun",
    "RunFolder",
    "begin_run",
    "build_student",
    "build_teacher",
    "choose_folder",
    "commit",
    "environment",
    "hold_run",
    "is_started_by_rank_zero",
    "load_run",
    "now",
    "read_environment",
    "read_presentations",
    "resolve_recipe",
    "save_model",
    "sources_of",
    "write_json",
    "write_manifest",
    "write_presentations",
]
