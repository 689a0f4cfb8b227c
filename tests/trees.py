"""Tiny data sets on disk for the tests: one builder per layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np


def picture(path: Path, seed: int = 0, size: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, len(path.name), sum(str(path).encode())])
    cv2.imwrite(str(path), rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
    return path


def mask(path: Path, size: int = 32, *, empty: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size, size), np.uint8)
    if not empty:
        pixels[5:12, 6:14] = 255
    cv2.imwrite(str(path), pixels)
    return path


def mvtec(root: Path) -> Path:
    for i in range(10):
        picture(root / "screw" / "train" / "good" / f"{i}.png")
    for i in range(3):
        picture(root / "screw" / "test" / "good" / f"g{i}.png")
        picture(root / "screw" / "test" / "bent" / f"b{i}.png")
        mask(root / "screw" / "ground_truth" / "bent" / f"b{i}_mask.png")
    return root


def mvtec_ad2(root: Path) -> Path:
    for i in range(10):
        picture(root / "can" / "train" / "good" / f"{i}.png")
    picture(root / "can" / "validation" / "good" / "v.png")
    picture(root / "can" / "test_public" / "good" / "g.png")
    for i in range(3):
        picture(root / "can" / "test_public" / "bad" / f"b{i}.png")
        mask(root / "can" / "test_public" / "ground_truth" / "bad" / f"b{i}_mask.png")
    picture(root / "can" / "test_private" / "p.png")
    return root


def btad(root: Path) -> Path:
    for i in range(10):
        picture(root / "01" / "train" / "ok" / f"{i}.bmp")
    picture(root / "01" / "test" / "ok" / "g.bmp")
    for i in range(3):
        picture(root / "01" / "test" / "ko" / f"b{i}.bmp")
        mask(root / "01" / "ground_truth" / "ko" / f"b{i}.png")
    return root


def visa(root: Path) -> Path:
    rows = ["object,split,label,image,mask"]
    for i in range(10):
        picture(root / "pcb1" / "Data" / "Images" / "Normal" / f"{i}.JPG")
        rows.append(f"pcb1,{'train' if i < 8 else 'test'},normal,pcb1/Data/Images/Normal/{i}.JPG,")
    for i in range(3):
        picture(root / "pcb1" / "Data" / "Images" / "Anomaly" / f"b{i}.JPG")
        mask(root / "pcb1" / "Data" / "Masks" / "Anomaly" / f"b{i}.png")
        rows.append(f"pcb1,test,anomaly,pcb1/Data/Images/Anomaly/b{i}.JPG,pcb1/Data/Masks/Anomaly/b{i}.png")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows))
    return root


def kolektor(root: Path) -> Path:
    for i in range(12):
        picture(root / f"kos{i:02}" / "Part0.jpg")
        mask(root / f"kos{i:02}" / "Part0_label.bmp", empty=i >= 3)
    return root


def magnetic_tile(root: Path) -> Path:
    for i in range(10):
        picture(root / "MT_Free" / "Imgs" / f"exp{i % 2}_num_{i // 2}.jpg")
    for i in range(3):
        picture(root / "MT_Crack" / "Imgs" / f"exp1_num_9{i}.jpg")
        mask(root / "MT_Crack" / "Imgs" / f"exp1_num_9{i}.png")
    return root


def folder(root: Path) -> Path:
    for i in range(10):
        picture(root / "OK" / f"{i}.png")
    for i in range(3):
        picture(root / "scratch" / f"b{i}.png")
        mask(root / "scratch" / f"b{i}_mask.png")
    return root


def masks_beside(root: Path) -> Path:
    for i in range(10):
        picture(root / f"{i}.png")
        if i < 2:
            mask(root / f"{i}_mask.png", empty=True)
    for i in range(3):
        picture(root / f"b{i}.png")
        mask(root / f"b{i}_mask.png")
    return root


def csv(root: Path) -> Path:
    rows = ["image,label,category,mask"]
    for i in range(10):
        picture(root / "images" / f"{i}.png")
        rows.append(f"images/{i}.png,good,gear,")
    for i in range(3):
        picture(root / "images" / f"b{i}.png")
        mask(root / "masks" / f"b{i}.png")
        rows.append(f"images/b{i}.png,chipped,gear,masks/b{i}.png")
    (root / "parts.csv").write_text("\n".join(rows))
    return root / "parts.csv"


def sound_only(root: Path) -> Path:
    for i in range(10):
        picture(root / f"{i}.png")
    return root


BUILDERS: dict[str, Callable[[Path], Path]] = {
    builder.__name__: builder
    for builder in (mvtec, mvtec_ad2, btad, visa, kolektor, magnetic_tile, folder, masks_beside, csv, sound_only)
}
