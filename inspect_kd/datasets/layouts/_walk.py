"""Find images, masks and tables in a folder, for all layouts."""

from __future__ import annotations

import csv
import errno
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from inspect_kd.datasets.images import IMAGE_SUFFIXES
from inspect_kd.errors import BadInput
from inspect_kd.plain_file import MISSING

SOUND_NAMES = frozenset({"good", "ok", "sound", "normal", "goods", "io", "pass", "accepted"})
MASK_FOLDERS = ("ground_truth", "masks", "mask")
MASK_ENDS = ("_mask", "_gt", "_label", "_seg", "-mask")
_UNUSUAL_MASK = re.compile(r"(?P<image>.+?)[_\-. ](masks?|gt|label|seg)[_\-. ]?[0-9]*")
"""Name of an image with a mask ending that is not in MASK_ENDS, or that is numbered."""
_DEFECT_WORDS = frozenset(
    {"bad", "ng", "ko", "nok", "nio", "defect", "defective", "anomaly", "reject", "rejects", "fail", "scrap"}
)
_HIDDEN = (".", "_")
MAX_TABLE_BYTES = 256 * 2**20
MAX_ROWS = 1_000_000


def check_inside(root: Path, path: Path) -> Path:
    """Return the path if it lies below the data set's folder; otherwise raise BadInput. Call it before reading a file."""
    try:
        home = (root if root.is_dir() else root.parent).resolve()
        if path.resolve().is_relative_to(home):
            return path
    except (OSError, ValueError, RuntimeError) as error:
        # Impossible file names, and circular links.
        raise BadInput(f"{path}: not a valid path ({type(error).__name__})") from error
    raise BadInput(f"{path}: leads out of the data set's folder ({path.resolve()}); links out of it are refused")


def read_column_names(path: Path) -> list[str]:
    """Read the names of a CSV's columns."""
    return next(_rows(path), [])


def read_table(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield the given columns of each row of a CSV; missing columns are left out, missing cells are empty."""
    rows = _rows(path)
    header = next(rows, [])
    for name in columns:
        if header.count(name) > 1:
            raise BadInput(f"{path}: {header.count(name)} columns are called '{name}'; keep the one that is right")
    positions = {name: position for position, name in enumerate(header) if name in columns}
    for number, row in enumerate(filter(None, rows), start=1):
        if number > MAX_ROWS:
            raise BadInput(f"{path}: more than {MAX_ROWS} rows; split the table")
        yield {name: row[position] if position < len(row) else "" for name, position in positions.items()}


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise BadInput(
                f"{path}: {path.stat().st_size} bytes exceeds the limit of {MAX_TABLE_BYTES} bytes for tables; split it"
            )
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise BadInput(f"{path}: not readable as a table ({error})") from error


def folders(root: Path) -> list[Path]:
    """List the visible folders in a folder, by name."""
    return (
        sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(_HIDDEN))
        if root.is_dir()
        else []
    )


def images_in(root: Path) -> list[Path]:
    """List the images directly in a folder, by name."""
    if not root.is_dir():
        return []
    return sorted(
        p for p in root.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file() and not p.name.startswith(".")
    )


def is_mask(path: Path) -> bool:
    """True if a file's name ends like a mask's."""
    return path.stem.lower().endswith(MASK_ENDS)


def image_stem(mask: Path) -> str:
    """Return the stem of a mask's image, from the mask's name."""
    end = next(end for end in MASK_ENDS if mask.stem.lower().endswith(end))
    return mask.stem[: -len(end)]


def masks_by_stem(folder: Path) -> dict[str, Path]:
    """Return the masks in a folder by the stem of their image, in lower case; refuse those that would be left out.

    A part whose mask is left out would be taken as sound.
    """
    images = [path for path in images_in(folder) if not is_mask(path)]
    stems = {path.stem.casefold() for path in images}
    masks: dict[str, Path] = {}
    for path in images_in(folder):
        if not is_mask(path):
            if has_unusual_mask_name(path, stems):
                raise BadInput(f"{path}: named like a mask of another image; an image has one mask, named <image>_mask")
            continue
        stem = image_stem(path).casefold()
        if stem not in stems:
            raise BadInput(f"{path}: has a mask's name, but there is no image of that name; rename it, or remove it")
        if stem in masks:
            raise BadInput(f"{path}: a second mask beside {masks[stem].name}; join the masks of an image into one")
        masks[stem] = path
    return masks


def has_unusual_mask_name(path: Path, stems: Collection[str]) -> bool:
    """True if a file's name is one of the images' stems (in lower case) with an unusual or numbered mask ending."""
    match = _UNUSUAL_MASK.fullmatch(path.stem.casefold())
    return match is not None and match["image"] in stems


def names_defect(name: str) -> bool:
    """True if a word of a name says that the part is defective."""
    return not _DEFECT_WORDS.isdisjoint(re.split(r"[_\-. ]", name.lower()))


def unreadable_masks(folder: Path) -> list[Path]:
    """List files in a folder that are named as masks but are no images, such as dangling links, if their image has no other mask.

    Without this check such a part would have no mask and be taken as sound.
    """
    images = images_in(folder)
    stems = {path.stem.casefold() for path in images if not is_mask(path)}
    masked = {image_stem(path).casefold() for path in images if is_mask(path)}
    others = sorted({*folder.iterdir()} - {*images})
    return [path for path in others if is_mask(path) and image_stem(path).casefold() in stems - masked]


def mask_in(folder: Path, stem: str) -> Path | None:
    """Find an image's mask in a folder: `<stem>_mask`, `<stem>`, `<stem>_gt` or `<stem>_label`, with any image suffix."""
    for end in ("_mask", "", "_gt", "_label"):
        for suffix in (".png", *sorted(IMAGE_SUFFIXES - {".png"})):
            path = folder / f"{stem}{end}{suffix}"
            try:
                if stat.S_ISREG(path.stat().st_mode):
                    return path
            except OSError as error:
                # With the ending, the name may be too long. A folder that cannot be read must not count as one without masks.
                if error.errno not in MISSING | {errno.ELOOP, errno.ENAMETOOLONG}:
                    raise
    return None


def is_sound_name(name: str) -> bool:
    """True if a folder's or label's name means sound parts."""
    return name.lower() in SOUND_NAMES
