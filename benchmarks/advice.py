"""Count true and false advice on the development sets. Writes docs/results/advice.{json,md}.

    INSPECT_KD_REAL_DATA=… python -m benchmarks.advice [--halves 20]

A person looked at the pictures and decided which advice each set deserves (DESERVED holds the reasons). The program advises on each set
as a whole, and on random halves of its pictures: advice whose number is near its threshold is given for some halves only.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks.results import ROOT, Content, publish
from inspect_kd.config import CalibrationConfig, Data
from inspect_kd.datasets import open_dataset
from inspect_kd.datasets.advice import (
    TOPICS,
    Advice,
    SoundPicture,
    advise_on_pictures,
    choose_samples,
    read_pictures,
    sound_samples,
)
from inspect_kd.training.run import environment
from inspect_kd.types import NoProgress, Sample, Split

SETS = {
    "bottle": "mvtec_ad",
    "metal_plate": "mpdd",
    "tile": "magnetic_tile",
    "paper": "piped",
    "assembly": "screws4",
    "alien": "lookout",
}
"""Category → folder below the data."""
DESERVED: dict[str, dict[str, str]] = {
    "bottle": {},
    "metal_plate": {
        "few parts": "54 sound parts",
        "pose": "the plates hang at any angle",
    },
    "tile": {
        "light": "six exposures",
        "series": "the tiles were pictured at several exposures, under numbers that are close but not equal",
    },
    "paper": {
        "products": "twelve papers, named PA_BDP01 to PA_ZPB01",
        "series": "up to eight cuts of each sheet, numbered at the end of their names",
    },
    "assembly": {
        "few parts": "18 sound pictures",
        "light": "daylight, lamp and flash",
        "series": "all pictures show one wooden block",
    },
    "alien": {"few parts": "38 sound parts"},
}
"""Category → topic → why advice on this topic is right for the set, be it only the note that training handles it."""
HALVES = 20
"""Number of random halves of each set."""
FEW_PARTS = "few parts"


def measure(category: str, folder: Path, halves: int) -> Content:
    """Advise on a whole set and on random halves of it."""
    data = open_dataset(folder)
    sound = sound_samples(data, category)
    began = time.process_time()
    pictures = read_pictures(choose_samples(sound), None, NoProgress())
    whole = advise(category, sound, pictures)
    seconds = time.process_time() - began
    rng = np.random.default_rng(0)
    counts: Counter[str] = Counter()
    for _ in range(halves):
        half = [pictures[i] for i in sorted(rng.choice(len(pictures), len(pictures) // 2, replace=False))]
        counts.update(each.topic for each in advise(category, _hold_out_again([p.sample for p in half]), half))
    return {
        "sound": len(sound),
        "read": len(pictures),
        "seconds": round(seconds, 2),
        "advice": {
            each.topic: {
                key: value for key, value in each.to_json(folder.name).items() if key not in ("files", "topic")
            }
            for each in whole
        },
        "halves": {topic: counts[topic] for topic in TOPICS if counts[topic]},
    }


def advise(category: str, sound: Sequence[Sample], pictures: Sequence[SoundPicture]) -> list[Advice]:
    return advise_on_pictures(category, sound, pictures, Data(), CalibrationConfig())


def _hold_out_again(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples of a half with new splits: the default share of them is held out, as in a set of that size."""
    held_out = round(Data().calibration * len(samples))
    return [
        replace(sample, split=Split.CALIBRATION if number < held_out else Split.TRAIN)
        for number, sample in enumerate(samples)
    ]


def deserves(category: str, topic: str, *, half_size: int | None = None) -> bool:
    """Whether advice on a topic is right for a set or, given `half_size`, for a half of it, which may have too few parts."""
    if half_size is not None and topic == FEW_PARTS:
        # The default thresholds need 19 held-out parts.
        return round(Data().calibration * half_size) < 19
    return topic in DESERVED[category]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--halves", type=int, default=HALVES)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    root = Path(os.environ.get("INSPECT_KD_REAL_DATA", ROOT / ".." / "shared" / "data")).resolve()
    sets = {category: measure(category, root / folder, arguments.halves) for category, folder in SETS.items()}
    publish("advice", {"environment": environment("cpu"), "halves": arguments.halves, "sets": sets}, page)


def page(content: Content) -> str:
    machine, sets, halves = content["environment"], content["sets"], content["halves"]
    lines = [
        "# Advice on the development sets",
        "",
        f"Written by `python -m benchmarks.advice`, {machine['started'][:10]}, one thread. Sound training pictures only, default recipe; "
        "what a set deserves was decided by looking at it. The thresholds were chosen on these sets. A random half keeps a quarter of "
        "the pairs of near-duplicates, so advice on series may be absent from it.",
        "",
        "| set | sound parts | CPU seconds | advice | halves with it | deserved |",
        "|---|---|---|---|---|---|",
    ]
    for category, result in sets.items():
        topics = [t for t in TOPICS if t in result["advice"] or t in DESERVED[category] or t in result["halves"]]
        for number, topic in enumerate(topics or ["none"]):
            head = [category, str(result["sound"]), f"{result['seconds']:.1f}"] if number == 0 else ["", "", ""]
            lines.append(f"| {' | '.join([*head, *_row(category, topic, result, halves)])} |")
    lines += ["", *_counts(sets, halves), "", "## What was said", ""]
    for category, result in sets.items():
        for topic, advice in result["advice"].items():
            command = f" `{advice['command']}`" if advice["command"] else ""
            mark = "done by training" if advice["done"] else topic
            lines.append(f"- **{category}**, {mark}: {advice['text']}; {advice['remedy']}.{command}")
    return "\n".join(lines) + "\n"


def _row(category: str, topic: str, result: Content, halves: int) -> list[str]:
    if topic == "none":
        return ["none", "–", "none"]
    advice = result["advice"].get(topic)
    given = (
        f"{topic} ({advice['number']:.3g})" + (", done by training" if advice["done"] else "")
        if advice
        else f"– ({topic})"
    )
    reason = DESERVED[category].get(topic)
    missing = "" if advice or not reason else "**missed**: "
    return [given, f"{result['halves'].get(topic, 0)} of {halves}", f"{missing}{reason}" if reason else "**no**"]


def _counts(sets: Content, halves: int) -> list[str]:
    given = [(category, topic) for category, result in sets.items() for topic in result["advice"]]
    false = [pair for pair in given if not deserves(*pair)]
    wanted = [(category, topic) for category, reasons in DESERVED.items() for topic in reasons]
    missed = [pair for pair in wanted if pair not in given]
    false_halves = sum(
        times
        for category, result in sets.items()
        for topic, times in result["halves"].items()
        if not deserves(category, topic, half_size=result["read"] // 2)
    )
    runs = halves * len(sets)
    possible = len(sets) * len(TOPICS) - len(wanted)
    return [
        f"False advice: {len(false)} of {possible} possible on the whole sets; {false_halves} on {runs} halves. "
        f"Deserved advice that was not given: {len(missed)} of {len(wanted)}"
        + (f" ({', '.join(f'{category}: {topic}' for category, topic in missed)})." if missed else "."),
    ]


if __name__ == "__main__":
    main()
