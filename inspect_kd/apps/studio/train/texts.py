"""All texts of the Train tab, for translation. `str.format` fills in the braces."""

from __future__ import annotations

from inspect_kd.apps.studio.train.record import State

INTRO = (
    "From a folder of sound parts to a report and one `.onnx` file. A training runs in its own process: "
    "you may close this page, and restart the Studio."
)
NO_TRAINING_PACKAGES = (
    "Training needs packages that are not installed here: `pip install 'inspect-kd[train,cpu]'` (or `[train,gpu]`)."
)

# Form
PARTS, PROGRESS, RUNS = "Parts", "Progress", "All runs"
FOLDER = "Folder"
FOLDER_INFO = "Folders that look like data sets; you may type any other below the data folder."
REFRESH_LIST = "Refresh list"
CHECK, CHECKING = "Check", "Checking every image …"
NOT_CHECKED = "A check shows what the folder contains, and what is wrong with it, before a training fails on it."
RECIPE = "Recipe"
LENGTH, NORMAL, QUICK = "Length", "normal", "quick"
LENGTH_INFO = "Quick does a quarter of the steps: enough to see whether the data is right."
SEED = "Seed"
NAME, NAME_INFO = "Name", "Empty: made from folder and recipe."
START, STOP, RESUME = "Start training", "Stop", "Resume"
OPEN_REPORT, OPENING, CLOSE_REPORT = "Open report", "Opening the report …", "Close report"
CHOSEN_RUN = "Run"
LOG = "Log"

# State of a run
NOTHING_YET = "No run yet. Choose a folder of sound parts, check it, and start."
NO_ARTIFACT = (
    "Complete, except that the artifact failed verification; the report names the images. "
    "To try again: inspect-kd export {folder}"
)
STATES = {
    State.WAITING: ("…", "waiting"),
    State.RUNNING: ("▶", "running"),
    State.STOPPING: ("■", "stopping"),
    State.STOPPED: ("■", "stopped"),
    State.FINISHED: ("✓", "finished"),
    State.FAILED: ("✕", "failed"),
    State.EXTERNAL: ("?", "unfinished"),
}
EXPLANATIONS = {
    State.WAITING: "One training runs at a time. Place in the queue: {place}.",
    State.RUNNING: "",
    State.STOPPING: "Stopping; its checkpoint is kept.",
    State.STOPPED: "Stopped. Resume continues from the checkpoint, with the same results.",
    State.FINISHED: "Complete: thresholds, artifact and report are in the run's folder {folder}.",
    State.FAILED: "Failed: {error}",
    State.EXTERNAL: "Started outside the Studio and not complete; it may still be running.",
}
STARTING = "starting"
PHASES = {
    "presentation": "prepare the pictures",
    "advice": "advice on the pictures",
    "train": "train",
    "study": "train the teacher",
    "align": "align features with the teachers'",
    "supervise": "train on defects",
    "refine": "refine",
    "calibrate": "thresholds",
    "evaluate": "evaluate",
    "export": "export",
    "prove": "verify",
    "report": "report",
}
LAST_PHASES = ("calibrate", "evaluate", "export", "prove", "report")
STEP, LEFT, LOSS, SYNTHETIC_AP = "step", "time left in this phase", "loss", "AP on synthetic defects"
CURVE_LOSS, CURVE_AP = "loss: {phase}", "AP on synthetic defects (higher is better)"
NO_CURVE = "The curves appear with the first steps."
FIRST_PARTS = "First sound parts of {folder}"
REPORT_PARTS = "Parts from the report: original and heatmap"

# Check of a folder
CATEGORY, DEFECTIVE, NOTHING_WRONG = "category", "defective", "Nothing wrong was found."
SPLITS = {"train": "train", "calibration": "calibration", "validation": "validation", "test": "test"}
SEVERITIES = {"error": ("✕", "error"), "warning": ("!", "warning"), "advice": ("→", "advice"), "note": ("•", "note")}
NOTES = "Notes ({count})"
MORE = "… and {count} more"
LAYOUT = "Layout {layout}, {images} images"

# List of runs
RUN_COLUMNS = ("run", "state", "data", "recipe", "started")
