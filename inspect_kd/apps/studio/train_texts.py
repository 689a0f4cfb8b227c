"""Every text of the Train tab, in one place for translation."""

from __future__ import annotations

from inspect_kd.apps.studio.training_record import State


class Train:
    """English."""

    INTRO = (
        "From a folder of good parts to a report and one `.onnx` file. A training runs in its own process: "
        "this page may be closed, and the Studio started anew."
    )
    NO_TRAINING_PACKAGES = (
        "Training needs packages that are not installed here: `pip install 'inspect-kd[train,cpu]'` (or `[train,gpu]`)."
    )
    PARTS, PROGRESS, RUNS = "Parts", "Progress", "All runs"
    FOLDER = "Folder"
    FOLDER_INFO = "Folders that look like data sets; any other below the data folder may be typed."
    AGAIN = "Look again"
    CHECK, CHECKING = "Check", "Looking at every image …"
    NOT_CHECKED = "Check tells what the folder holds, and what is wrong with it, before a training finds out."
    RECIPE = "Recipe"
    LENGTH, NORMAL, QUICK = "Length", "normal", "quick"
    LENGTH_INFO = "Quick does a fourth of the steps: to see whether the data is right."
    SEED = "Seed"
    NAME, NAME_INFO = "Name", "Empty: made from folder and recipe."
    START, STOP, RESUME = "Start training", "Stop", "Resume"
    OPEN_REPORT, OPENING, CLOSE_REPORT = "Open report", "Opening the report …", "Close report"
    CHOOSE = "Run"
    LOG = "Log"
    NOTHING_YET = "No run yet. Choose a folder of good parts, check it, and start."
    NO_FOLDER = "choose a folder first"
    NO_ARTIFACT = (
        "Complete but for its artifact, which failed its proof; the report names the images. "
        "To try again: inspect-kd export {folder}"
    )
    STATES = {  # noqa: RUF012, read only
        State.WAITING: ("…", "waiting"),
        State.RUNNING: ("▶", "running"),
        State.STOPPING: ("■", "stopping"),
        State.STOPPED: ("■", "stopped"),
        State.FINISHED: ("✓", "finished"),
        State.FAILED: ("✕", "failed"),
        State.UNFINISHED: ("?", "unfinished"),
    }
    TOLD = {  # noqa: RUF012
        State.WAITING: "One training runs at a time. Place in the queue: {place}.",
        State.RUNNING: "",
        State.STOPPING: "Stopping; what its checkpoint holds is kept.",
        State.STOPPED: "Stopped. Resume goes on from the checkpoint, to the same numbers.",
        State.FINISHED: "Complete: thresholds, artifact and report lie in the run's folder {folder}.",
        State.FAILED: "Failed: {complaint}",
        State.UNFINISHED: "Begun outside of the Studio and not complete; it may still be running.",
    }
    STARTING = "starting"
    PHASES = {  # noqa: RUF012
        "train": "train",
        "study": "study",
        "align": "align",
        "supervise": "learn defects",
        "refine": "refine",
        "calibrate": "thresholds",
        "evaluate": "evaluate",
        "export": "export",
        "prove": "prove",
        "report": "report",
    }
    LAST_PHASES = ("calibrate", "evaluate", "export", "prove", "report")
    STEP, LEFT, LOSS, GAP, TIME = "step", "left in this phase", "loss", "synthetic gap", "in this phase"
    CURVE_LOSS, CURVE_GAP = "loss: {phase}", "synthetic gap (AP of drawn defects)"
    NO_CURVE = "The curves begin with the first steps."
    FIRST_PARTS = "First sound parts of {folder}"
    REPORT_PARTS = "Parts worth a look: as they are, and with their heat"
    CATEGORY, DEFECTIVE, NOTHING_WRONG = "category", "defective", "Nothing wrong was found."
    SPLITS = {"train": "train", "calibration": "calib.", "validation": "valid.", "test": "test"}  # noqa: RUF012
    SEVERITIES = {"error": ("✕", "error"), "warning": ("!", "warning"), "note": ("•", "note")}  # noqa: RUF012
    NOTES = "Good to know ({count})"
    MORE = "… and {count} more"
    LAYOUT = "Layout {layout}, {images} images"
    HEAD = ("run", "state", "data", "recipe", "begun")
