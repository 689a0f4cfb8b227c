"""Generate textures and scenes, for synthetic defects and to train the embedded encoder.

They are generated, not photographed, so that no data set's licence applies to models that are trained on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inspect_kd.types import ImageU8

Field = npt.NDArray[Any]
"""float32 (H, W), 0 to 1. `Any`, because OpenCV's stubs give no element type."""
Rng = np.random.Generator


def noise_field(
    height: int, width: int, rng: Rng, *, cell: float = 32, octaves: int = 4, roughness: float = 0.5
) -> Field:
    """Generate a smooth random field: octaves of random values on a lattice, with cubic interpolation."""
    field = np.zeros((height, width), np.float32)
    weight = 1.0
    for octave in range(octaves):
        pitch = max(1.5, cell / 2**octave)
        lattice = rng.random((int(height / pitch) + 4, int(width / pitch) + 4), dtype=np.float32)
        upsampled = cv2.resize(lattice, None, fx=pitch, fy=pitch, interpolation=cv2.INTER_CUBIC)
        top, left = (
            rng.integers(0, max(1, upsampled.shape[0] - height)),
            rng.integers(0, max(1, upsampled.shape[1] - width)),
        )
        field += weight * upsampled[top : top + height, left : left + width]
        weight *= roughness
    return stretch(field)


def stretch(field: Field) -> Field:
    """Scale a field to the range 0 to 1."""
    low, high = float(field.min()), float(field.max())
    return ((field - low) / max(high - low, 1e-6)).astype(np.float32)


def stripes(height: int, width: int, rng: Rng) -> Field:
    """Generate a grating, straight or wavy, sinusoidal or square."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(4, 40)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    along += noise_field(height, width, rng, cell=60, octaves=2) * rng.uniform(0, 2) * pitch
    wave = np.sin(2 * np.pi * along / pitch)
    return stretch(np.sign(wave) if rng.random() < 0.3 else wave)


def weave(height: int, width: int, rng: Rng) -> Field:
    """Generate two gratings that alternate in a checkerboard."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    pitch = rng.uniform(5, 24)
    over = ((rows // pitch + columns // pitch) % 2).astype(np.float32)
    across, along = np.abs(np.sin(np.pi * rows / pitch)), np.abs(np.sin(np.pi * columns / pitch))
    return stretch(over * across + (1 - over) * along + 0.2 * noise_field(height, width, rng, cell=12))


def brushed(height: int, width: int, rng: Rng) -> Field:
    """Generate fine streaks in one direction, as on milled or brushed metal."""
    streaks: Field = rng.random((height, width), dtype=np.float32)
    length = int(rng.integers(15, 80)) | 1
    streaks = cv2.blur(streaks, (length, 1))
    if rng.random() < 0.5:
        streaks = np.ascontiguousarray(cv2.resize(streaks, (height, width)).T)
    return stretch(streaks)


def cells(height: int, width: int, rng: Rng) -> Field:
    """Generate grains: the distance to the nearest of random points, or one tone for each cell."""
    count = int(rng.integers(8, 120))
    seeds = np.full((height, width), 255, np.uint8)
    seeds[rng.integers(0, height, count), rng.integers(0, width, count)] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    if rng.random() < 0.5:
        tones = rng.random(int(labels.max()) + 1, dtype=np.float32)
        return stretch(tones[labels])
    return stretch(distance)


def marble(height: int, width: int, rng: Rng) -> Field:
    """Generate noise that is distorted by other noise."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    strength = rng.uniform(10, 60)
    bend = [noise_field(height, width, rng, cell=50) * strength for _ in range(2)]
    base = noise_field(height, width, rng, cell=rng.uniform(8, 40))
    return cv2.remap(base, columns + bend[0], rows + bend[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def speckle(height: int, width: int, rng: Rng) -> Field:
    """Generate dots of several sizes on a plain background."""
    field = np.full((height, width), rng.random(), np.float32)
    for _ in range(int(rng.integers(20, 200))):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.circle(field, centre, int(rng.integers(1, 6)), float(rng.random()), -1, cv2.LINE_AA)
    return field


def cloudy(height: int, width: int, rng: Rng) -> Field:
    """Generate noise of a random scale and roughness."""
    return noise_field(
        height, width, rng, cell=rng.uniform(6, 80), octaves=int(rng.integers(2, 6)), roughness=rng.uniform(0.4, 0.8)
    )


PATTERNS: tuple[Callable[[int, int, Rng], Field], ...] = (cloudy, stripes, weave, brushed, cells, marble, speckle)


def draw_texture(height: int, width: int, rng: Rng) -> ImageU8:
    """Draw a random pattern in two or three random colours."""
    field = PATTERNS[rng.integers(len(PATTERNS))](height, width, rng)
    return colourise(field, rng)


def colourise(field: Field, rng: Rng) -> ImageU8:
    """Map a field onto a ramp of random colours, grey in a third of the cases."""
    ramp = rng.uniform(0, 255, (int(rng.integers(2, 4)), 3))
    if rng.random() < 0.35:
        ramp = np.repeat(ramp[:, :1], 3, axis=1)
    positions = np.linspace(0, 1, len(ramp))
    table = np.stack([np.interp(np.linspace(0, 1, 256), positions, ramp[:, c]) for c in range(3)], axis=1)
    return table.astype(np.uint8)[(field * 255).astype(np.uint8)]


def draw_scene(height: int, width: int, rng: Rng) -> ImageU8:
    """Draw a scene of textures, shaded shapes, lines, text and repeated elements, with uneven light, blur and noise."""
    scene = draw_texture(height, width, rng).astype(np.float32)
    for _ in range(int(rng.integers(0, 14))):
        _paste_shape(scene, rng)
    for _ in range(int(rng.integers(0, 10))):
        _draw_mark(scene, rng)
    if rng.random() < 0.3:
        _draw_grid(scene, rng)
    return _expose(scene, rng)


def _paste_shape(scene: npt.NDArray[Any], rng: Rng) -> None:
    """Add an occluding shape with its own texture, shading and sometimes a shadow (the dead-leaves model of natural images)."""
    height, width = scene.shape[:2]
    mask: Field = np.zeros((height, width), np.float32)
    radius = float(np.exp(rng.uniform(np.log(4), np.log(0.45 * width))))
    centre = rng.uniform(0, width, 2)
    kind = rng.integers(3)
    if kind == 0:
        axes = (max(2, int(radius)), max(2, int(radius * rng.uniform(0.3, 1))))
        cv2.ellipse(
            mask, tuple(centre.astype(int).tolist()), axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1, cv2.LINE_AA
        )
    else:
        corners = int(rng.integers(3, 8)) if kind == 1 else 4
        angles = (
            np.sort(rng.uniform(0, 2 * np.pi, corners))
            if kind == 1
            else rng.uniform(0, 2 * np.pi) + np.arange(4) * np.pi / 2
        )
        points = centre + radius * np.stack([np.cos(angles), np.sin(angles) * rng.uniform(0.4, 1)], axis=1)
        cv2.fillPoly(mask, [points.astype(np.int32)], 1.0, cv2.LINE_AA)
    if rng.random() < 0.3:
        mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 3))
    if rng.random() < 0.4:
        shadow = np.roll(cv2.GaussianBlur(mask, (0, 0), rng.uniform(1, 5)), rng.integers(-6, 7, 2), axis=(0, 1))
        scene *= 1 - rng.uniform(0.1, 0.6) * shadow[:, :, None]
    fill = draw_texture(height, width, rng).astype(np.float32)
    if rng.random() < 0.5:
        fill *= 0.5 + _gradient(height, width, rng)[:, :, None]
    scene += mask[:, :, None] * (fill - scene)


def _draw_mark(scene: npt.NDArray[Any], rng: Rng) -> None:
    """Draw a line, ring, arc or text."""
    height, width = scene.shape[:2]
    colour = rng.uniform(0, 255, 3).tolist()
    thickness = int(rng.integers(1, 5))
    first, second = (tuple(rng.integers(0, (width, height)).tolist()) for _ in range(2))
    kind = rng.integers(4)
    if kind == 0:
        cv2.line(scene, first, second, colour, thickness, cv2.LINE_AA)
    elif kind == 1:
        cv2.circle(scene, first, int(rng.integers(3, width // 3)), colour, thickness, cv2.LINE_AA)
    elif kind == 2:
        start, sweep = rng.uniform(0, 360), rng.uniform(20, 300)
        axes = tuple(rng.integers(3, width // 3, 2).tolist())
        cv2.ellipse(scene, first, axes, start, 0, sweep, colour, thickness, cv2.LINE_AA)
    else:
        text = "".join(rng.choice(list("ABCDEFGHKLMNPRSTXZ0123456789"), int(rng.integers(1, 6))).tolist())
        ink = np.zeros((height, width), np.uint8)  # OpenCV 5 draws text on uint8 images only
        cv2.putText(ink, text, first, cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.3, 1.5), 255, thickness, cv2.LINE_AA)
        scene += (ink[:, :, None] / np.float32(255)) * (np.float32(colour) - scene)


def _draw_grid(scene: npt.NDArray[Any], rng: Rng) -> None:
    """Draw a grid of equal dots, like holes, pads or pins."""
    height, width = scene.shape[:2]
    pitch, size = int(rng.integers(10, 40)), rng.uniform(0.15, 0.45)
    colour, edge = rng.uniform(0, 255, 3).tolist(), rng.uniform(0, 255, 3).tolist()
    left, top = rng.integers(0, width // 2), rng.integers(0, height // 2)
    for y in range(int(top), min(height, int(top) + pitch * int(rng.integers(2, 8))), pitch):
        for x in range(int(left), min(width, int(left) + pitch * int(rng.integers(2, 8))), pitch):
            cv2.circle(scene, (x, y), max(1, int(size * pitch)), colour, -1, cv2.LINE_AA)
            cv2.circle(scene, (x, y), max(1, int(size * pitch)), edge, 1, cv2.LINE_AA)


def _gradient(height: int, width: int, rng: Rng) -> Field:
    """Generate a ramp from 0 to 1 in a random direction."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    return stretch(rows * np.sin(angle) + columns * np.cos(angle))


def _expose(scene: npt.NDArray[Any], rng: Rng) -> ImageU8:
    """Apply uneven light, a random exposure, blur and noise."""
    height, width = scene.shape[:2]
    light = 1 + rng.uniform(0, 0.6) * (_gradient(height, width, rng) - 0.5)
    scene = scene * light[:, :, None] * rng.uniform(0.6, 1.3)
    if rng.random() < 0.25:
        scene = np.repeat(scene.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < 0.5:
        scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.4, 1.6))
    scene = scene + rng.normal(0, rng.uniform(0, 8), scene.shape)
    return np.clip(scene, 0, 255).astype(np.uint8)
