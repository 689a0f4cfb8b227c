"""All texts of the Studio, for translation; those of the Train tab are in `train/texts.py`. `str.format` fills in the braces."""

from __future__ import annotations

from inspect_kd.types import Decision

TITLE = "inspect-kd Studio"
INSPECT, COMPARE, ARTIFACT, TRAIN, ZONES = "Inspect", "Compare", "Artifact", "Train", "Zones"
THEME_SWITCH = "Light / dark"

ICONS = {Decision.OK: "✓", Decision.REINSPECT: "?", Decision.NG: "✕"}

# Artifact and category
WHICH_ARTIFACT = "Artifact"
WHICH_CATEGORY = "Category"
ALL_CATEGORIES = "all categories together"

# Uploads
FILES = "Parts"
DROP = "Drop images, click, or Ctrl+V"
CAMERA = "Camera"
CAMERA_NAME = "camera-%H%M%S.png"
CAMERA_PICTURE = "Picture from the camera"
EXAMPLES = "Example parts"
CLEAR = "Clear parts"
CANCEL = "Stop"
DEFAULT_NAME = "part"
EMPTY_VIEW = "No part yet"
EMPTY_HINT = "Drop images on the left, paste one with Ctrl+V, or use the camera."
EMPTY_GALLERY = "Inspected parts appear here, the highest score first."
NO_PART_PASSES = "No part passes this filter."
PROGRESS = "{done} of {total} inspected"
PROGRESS_PACE = "{pace:.1f} parts/s, {left:.0f} s left"
STOPPED = "Stopped: {done} parts were inspected, the others were not."
REFUSED_ONE = "1 file was not inspected: exports list it as NG"
REFUSED_MANY = "{count} files were not inspected: exports list them as NG"
REFUSED_MORE = "and {count} more"
REFUSED_UNLISTED = "not inspected; a session lists at most {maximum} refused files"
TOO_LARGE = "larger than {mb} MB, the limit of this Studio"
SESSION_FULL = "no more than {maximum} parts in one session: clear the parts first"
DISK_FULL = "no room left: all sessions together may keep {mb} MB"
ARTIFACT_CHANGED = "the artifact was changed while this part was being inspected: send it again"
PART_NOT_STORED = "could not be stored ({reason}): send it again"
PART_STOPPED = "stopped before this part was inspected"
COMPARISON_STOPPED = "the comparison was stopped, because parts or artifact were changed: compare again"
CHANGE_STOPPED = "the change of the artifact was stopped: the former artifact stays"
NO_CATEGORY = "no category '{category}': for all categories together, leave the category empty"
NOT_RECEIVED = "not a file that was sent to this Studio, or one that was already read: send it again"
NO_LENGTH = "an upload must state its size once (Content-Length, no Transfer-Encoding)"
UPLOAD_STALLED = "the upload stopped arriving: send it again"
BODY_TOO_LARGE = "a request of this kind may have at most {maximum} bytes"
BODY_TOO_COMPLEX = "a request may have at most {maximum} brackets and commas"
BODY_TOO_SLOW = "a request must arrive within {seconds} s: send it again"
NO_MEMORY_FOR_BODY = "this Studio is receiving too many requests: send it again in a minute"
LOGIN_IS_FORM = "send a login as application/x-www-form-urlencoded"
NO_SESSION = "no session: send a session_hash of your own with each call, as Gradio's clients do"
THRESHOLD_OUT_OF_RANGE = "thresholds must lie between 0 and {maximum:g} (the artifact's own NG threshold is {reject:g})"
NO_SUCH_ADDRESS = "cannot listen on {host} ({reason}): give --host an address of this machine"
ALL_SESSIONS_IN_USE = (
    "all {maximum} sessions of this Studio are in use: close a tab that is not needed, clear its parts, or wait until one has been idle "
    "for {minutes} minutes"
)
PARTS_WERE_CLEARED = (
    "Your session was cleared; parts lost: {count}. The connection was lost, or the session was idle for {minutes} minutes and its "
    "place was needed. Marks and saved calibrations are stored; upload the parts again."
)

# Thresholds
THRESHOLDS = "Thresholds"
REINSPECT_ABOVE = "RE-INSPECT above"
NG_ABOVE = "NG above"
RESET = "Reset to the artifact's own"
DECISION_COUNTS = "Decisions under these thresholds"
INSPECTED = "inspected"
HELD_OUT = "held-out sound"
PROMISE = "New sound parts from this line: at most <b>{reject}</b> NG, <b>{stopped}</b> NG or RE-INSPECT."
PROMISE_NONE = "The artifact has no held-out scores, so nothing can be promised."
HISTOGRAM = "Histogram of scores: {shown} inspected parts above the axis, {sound} held-out sound parts below it"
LEGEND_SOUND = "held-out sound parts"
LEGEND_SHOWN = "inspected parts"
SAVE_CALIBRATION = "Sign off these thresholds"
SIGN_OFF_WHY = "Writes a new calibration file. The artifact and all earlier files stay unchanged."
SIGN_OFF_BY = "Your name"
SIGN_OFF_BUTTON = "Sign off and save"
SIGNED_OFF = (
    "Saved as <code>{file}</code>, signed off by {by}. Use it: "
    "<code>inspect-kd predict {artifact} IMAGES… --calibration {path}</code>. A line that runs with <code>--trusted</code> needs it "
    "signed with a key first: <code>inspect-kd sign {path} --key KEY</code>"
)
NOT_AS_SHOWN = "artifact or thresholds have changed since this page was shown: check them again, then sign off"
NOT_SIGNED_OFF = "Not saved: {reason}"

# One part
SCORE = "score"
BOTH_THRESHOLDS = "RE-INSPECT above {reinspect:.3f} · NG above {reject:.3f}"
OPACITY = "Heat"
CONTOURS = "Contours"
NUMBERS = "Numbers"
WIPE = "Original | heat"
HEAT_SCALE = "× NG threshold"
ALT_PREVIEW = "The part {name}"
PART_IS_OK = "It is OK"
PART_IS_NG = "It is NG"
NEXT, PREVIOUS = "Next", "Previous"
KEYS = (("O", "OK"), ("N", "NG"), ("J →", "next"), ("K ←", "previous"), ("H", "hide heat"))
MARKED_RIGHT = "You agree: {mark}"
MARKED_WRONG = "Wrong call: you marked {mark}"
MARKED = "You decided: {mark}"
MARK_TOO_LATE = "the part that this mark is for has been removed: nothing was stored"
NO_ROOM_FOR_MARK = "no mark is stored with less than {mb} MB free on the disk: make room in {store}"
MARK_OF_OTHERS = (
    "Your mark is taken back. The image stays stored for training: it has the same mark from another session."
)
MARK_STORED = "stored for training"
REGIONS = "Regions"
REGION_COLUMNS = ("no.", "peak", "x, y", "size", "area")
NO_REGIONS = "No region: the score is below the RE-INSPECT threshold."

RECOGNISED = "recognised as {category}"
NOT_FOUND_NOTE = (
    "Not found, NG under any thresholds: {shown} inspected, {sound} held-out sound parts (not in the histogram)"
)

# Gallery
FILTER_NAMES = {
    "all": "All",
    "NG": "✕ NG",
    "RE-INSPECT": "? RE-INSPECT",
    "OK": "✓ OK",
    "marked": "Marked",
    "wrong": "Wrong calls",
}
ORDER = "Order"
ORDER_NAMES = {"worst": "worst first", "best": "best first", "arrival": "as uploaded"}
PAGE_OF = "{page} of {pages}"
FORMATS = {"csv": "CSV", "json": "JSON", "html": "HTML page"}

# Compare
COMPARE_WITH = "Second artifact"
COMPARE_BUTTON = "Compare on all parts"
COMPARE_EMPTY = "Choose a second artifact and compare: it inspects the same parts."
COMPARE_NO_PARTS = "There are no parts yet: upload some under “Inspect” first."
COMPARE_ONE = "This Studio has only one artifact. Start the Studio with two: inspect-kd ui first.onnx second.onnx"
AGREE = "{same} of {total} parts get the same decision."
DIFFERENT = "Parts with different decisions, the largest difference of scores first"
NO_DIFFERENCE = "Both artifacts decide the same for every part."

# Artifact card
CARD_PROMISE = "What the thresholds promise"
CARD_RECIPE = "Recipe"
CARD_LICENCES = "Licences of the weights inside"
CARD_PARITY = "Verification: the artifact compared with its PyTorch student"
CARD_VERSIONS = "Made with"
CARD_FILE = "File"
CARD_COLUMNS = (
    "category",
    "held-out sound parts",
    "RE-INSPECT above",
    "NG above",
    "sound parts NG or RE-INSPECT",
    "sound parts NG",
)
CARD_FILE_ROWS = ("name", "size", "sha256", "signature", "created", "trained on", "recipe's digest")
CARD_FILE_GONE = "moved or removed; this Studio continues with the one that it opened"
BOX_INPUT, BOX_TILES = "{target}, input {size} × {size} pixels", ", in tiles of {tile}"
BOX_CATEGORIES = "categories in this model: {count}"
BOX_PROMISE = "false NG promised, from {n} held-out sound parts"
BOX_FLIPS = "decisions flipped by the export, of {images} images"
SIGNED, UNSIGNED = "signed (verify with inspect-kd verify)", "not signed"
PARITY_NAMES = {
    "images": "images compared",
    "real_images": "of these, real images",
    "flips": "decisions that flipped",
    "score": "largest difference of a score",
    "heatmap": "largest difference of a heatmap",
    "heatmap_mean": "mean difference of heatmaps",
    "auroc": "change of AUROC",
    "near_threshold": "images close to a threshold",
    "batches": "batch sizes compared",
}

CARD_PRESENTATION = "How the parts are presented"
PRESENTATION_MEANING = (
    "With alignment each part is found in its image and moved into the reference frame. A part that does not agree with the reference "
    "is NG as “not found”."
)
PRESENTATION_COLUMNS = ("category", "alignment", "reference frame", "the model sees")
NOT_ALIGNED, FRAME_SIZE = "none", "{width} × {height} px"
TILE_SIDE, NO_TILES = "tiles of {tile} px", "all at once"
ALT_REFERENCE = "The reference picture of {category}"

# Starting
NO_GRADIO = "the Studio needs Gradio: pip install 'inspect-kd[ui,cpu]'"
NO_ARTIFACT = (
    "no artifact: name one (inspect-kd ui part.onnx), or make one with `inspect-kd demo`; none was found below {runs}"
)
BEYOND_LOOPBACK = (
    "--host {host} lets other machines in: add --auth NAME:PASSWORD, or --open to allow everybody on that network"
)
BAD_AUTH = "--auth needs NAME:PASSWORD (or NAME:PASSWORD,NAME:PASSWORD)"

# Refused requests
FOREIGN_HOST = "{host} is not a name of this Studio: open the address it printed, or start it with --allow-host NAME"
FOREIGN_ORIGIN = (
    "a page of {origin} may not call this Studio; if this is its public address, start it with --allow-host NAME"
)
FOREIGN_SITE = "a page of another site may only link to this Studio"
NOT_SERVED = "this Studio does not serve that"
METHOD_REFUSED = "this route accepts {methods} only"
TOO_MANY_LOGINS = "Too many wrong logins: try again in {seconds} s."
BAD_HOST = "--allow-host {name}: give the name as in the address bar, NAME or NAME:PORT, without https://"

# Limits against exhaustion
FILES_ONLY = "an upload may contain files alone, no text fields"
LOGIN_FIRST = "log in first"
BAD_SESSION_NAME = "a session_hash may have at most {maximum} characters, each a letter, a digit, _ or -"
TOO_MANY_FILES = "an event may name at most {maximum} files: send several events"
BAD_EVENT = "this event needs a value '{name}', as the page sends it"
NOT_USABLE = "a value of this event cannot be used ({reason}): correct it and try again"
NAMED_TWICE = "an event names the same file twice: upload it once for each use"
TOO_MANY_UNREAD = (
    "{maximum} results of this session have not been read: read them (/queue/data) before sending more events"
)
RESULTS_NOT_READ = "the results of this session were not read in time: read them, then send the event again"
EXAMPLE_UNREADABLE = "cannot be read: {reason}"
