"""All texts of the Zones tab, for translation; `SCRIPT` are those that the page's script shows. `str.format` fills in the braces."""

from __future__ import annotations

INTRO = (
    "Draw places of the part that are not inspected, or that tolerate more or less heat than the rest. A finished run gets them by a "
    "new calibration, without training."
)
RUN, CATEGORY = "Run", "Category"
NO_RUNS = "There is no finished run of a student yet: train one under “Train”."
CHOOSE = "Choose a finished run. Its median sound part appears here, and you draw on it."
OPENING = "Computing the median of the sound parts …"
NEEDS_RUN = "choose a run first"
NOT_DRAWN = "the drawing could not be read: reload the page"
OUTSIDE_ROOT = (
    "the images of this run are not below the Studio's data folder: start the Studio with --train-on FOLDER, or draw elsewhere and use "
    "inspect-kd export --zones"
)
NO_SOURCE = "the images of this run are not where they were at its training"
NOT_A_STUDENT = "only students have zones, and this run is a teacher's"
NO_PICTURE = "the picture could not be computed: {reason}"
SIZES_DIFFER = (
    "the images of “{category}” have different sizes ({sizes}), so zones have no fixed place in them: align the parts (data.align), or "
    "use images of one size"
)
FRAME_TOO_LARGE = (
    "{width} × {height} pixels are more than the {maximum} million that the Studio draws in: write a zones.yaml by hand"
)
NONE_FOUND = "none of the sound parts of “{category}” was found in its image, so zones have no place"
HAS_LABELS = "This run's zones are a label picture, which cannot be edited here: zones that are drawn take its place."
ABOUT_ALIGNED = "Median of {parts} sound parts in the reference frame, {width} × {height} pixels."
ABOUT_PLAIN = "Median of {parts} sound images, {width} × {height} pixels."
FILE_TOO_LONG = "this file has more than {maximum} characters"
NO_ZONES = "there are no zones yet: draw one"

# Buttons and labels of the editor
CANVAS = "Drawing of the zones on the median sound part"
NEW, CLOSE, UNDO, REDO = "New zone", "Close zone", "Undo", "Redo"
ZONES = "Zones"
SAVE, LOAD, MAKE, STOP = "Download zones.yaml", "Load a zones.yaml", "Make an artifact with these zones", "Stop"
MAKE_WHY = "Calibrates the thresholds again on the run's held-out parts. Takes minutes; the run itself stays as it is."
BY_HAND = "On the command line"
KEYS_HEADING = "Mouse and keys"
KEYS = (
    ("click", "adds a corner; a click on a zone selects it, and its corners can be dragged"),
    ("Enter", "closes the zone, as does a click on its first corner"),
    ("Backspace", "removes the last corner"),
    ("Esc", "abandons the zone that is being drawn"),
    ("Ctrl+Z", "undoes, Ctrl+Shift+Z redoes"),
    ("Delete", "deletes the selected zone"),
    ("arrows", "move the crosshair, or the chosen corner, by one pixel; with Shift by ten, with Ctrl by a hundred"),
    ("Space", "sets a corner at the crosshair"),
    ("C", "chooses the next corner of the selected zone, Shift+C the previous one"),
    ("N", "begins a new zone, also on top of another one"),
    ("Tab", "moves on to the list of zones"),
)
SCRIPT = {
    "name": "Name of zone {n}",
    "rule": "What holds in zone {n}",
    "ignore": "ignore",
    "tolerance": "tolerance",
    "factor": "Tolerance of zone {n}: below 1 stricter, above 1 more lenient",
    "scope": "Category of zone {n}",
    "here": "only {category}",
    "everywhere": "all categories",
    "remove": "Delete zone {n}",
    "pick": "Zone {n}, {corners} corners: choose its first corner",
    "none": "No zone yet. Click the corners of one on the picture.",
    "others": "Zones of other categories, also in the file: {count}",
    "fewCorners": "A zone needs at least 3 corners.",
    "cursor": "Crosshair at {x}, {y}",
    "corner": "Corner {i} of {name} at {x}, {y}",
    "drawn": "Corner {i} at {x}, {y}",
    "closed": "{name} is closed",
    "abandoned": "Abandoned",
    "undone": "Undone",
    "redone": "Redone",
    "tooMany": "More than {maximum} corners: use a zones.yaml written by hand",
    "tooLong": "This file is too long for zones",
    "unfinished": "Close the zone that is being drawn first (Enter), or abandon it (Esc).",
    "newName": "zone {n}",
    "loaded": "Loaded {file}",
}

# Making an artifact
MAKING = "{phase} {done} of {total}"
STARTING = "starting"
MADE = "Made {artifact}"
MADE_NEXT = "Open it here, or inspect with it:"
NOT_MADE = "No artifact: {reason}"
STOPPED = "Stopped: no artifact was made."
