"""The smear around a white cell: red cells, stray platelets, plasma."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .optics import GIEMSA_STAINS
from .shapes import Array, ellipse, smooth_noise, soft, speckles

NUCLEUS, CYTOPLASM, EOSIN, AZURE, RED = range(len(GIEMSA_STAINS))


@dataclass
class Canvas:
    """What all parts of one image share: coordinates, random numbers and the stains laid down so far."""

    rng: np.random.Generator
    size: int
    x: Array  # (H, W) from -1 to 1
    y: Array
    stains: Array  # (S, H, W)
    edge: float  # width of an edge, in relative units

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))


def lay_smear(canvas: Canvas, unit: float, center: Array, radius: float) -> None:
    """Red cells, stray platelets and a trace of plasma around the white cell."""
    rng, size = canvas.rng, canvas.size
    canvas.stains[RED] += np.clip(0.03 + 0.015 * smooth_noise(rng, 3, size), 0, None)
    red_radius = unit * canvas.uniform(0.46, 0.66)
    crowding = rng.choice([0.0, 0.15, 0.5, 0.8, 1.1], p=[0.2, 0.15, 0.25, 0.25, 0.15])
    count = int(crowding * 1.0 / red_radius**2) + (1 if crowding else 0)
    pallor, tone = canvas.uniform(0.2, 1.0), canvas.uniform(0.25, 0.62)
    for _ in range(count):
        place = rng.uniform(-1.25, 1.25, 2)
        reach = red_radius * canvas.uniform(0.8, 1.15)
        if np.hypot(*(place - center)) < radius + reach * canvas.uniform(0.5, 1.0):
            continue
        lay_red_cell(canvas, place, reach, pallor * canvas.uniform(0.3, 1.2), tone * canvas.uniform(0.8, 1.2))
    for _ in range(rng.poisson(0.5 if crowding else 0.1)):
        lay_platelet(canvas, rng.uniform(-0.95, 0.95, 2), unit * canvas.uniform(0.1, 0.18))


def _window(canvas: Canvas, place: Array, reach: float) -> tuple[slice, slice]:
    low = np.clip(((place - reach + 1) / 2 * canvas.size).astype(int), 0, canvas.size)
    high = np.clip(((place + reach + 1) / 2 * canvas.size).astype(int) + 1, 0, canvas.size)
    return slice(low[1], high[1]), slice(low[0], high[0])


def lay_red_cell(canvas: Canvas, place: Array, radius: float, pallor: float, tone: float) -> None:
    rows, columns = _window(canvas, place, radius * 1.3)
    x, y = canvas.x[rows, columns], canvas.y[rows, columns]
    if x.size == 0:
        return
    angle, stretch = canvas.uniform(0, np.pi), canvas.uniform(0.8, 1.0)
    distance = ellipse(x, y, tuple(place), (radius, radius * stretch), angle)
    turn = np.arctan2(y - place[1], x - place[0])
    wobble = canvas.rng.normal(0, 0.013, 3)
    distance = distance + np.float32(radius) * sum(
        np.float32(amount) * np.sin((number + 2) * turn + amount * 90) for number, amount in enumerate(wobble)
    )
    inner = np.exp(-np.square(np.hypot(x - place[0], y - place[1]) / np.float32(radius * 0.52)) * 1.3)
    rim = 0.25 * np.exp(-np.square((distance + 0.12 * radius) / np.float32(0.12 * radius)))
    body = soft(distance, canvas.edge)
    canvas.stains[RED][rows, columns] += body * np.clip(tone * (1.0 - pallor * inner + rim), 0.02, None)


def lay_platelet(canvas: Canvas, place: Array, radius: float) -> None:
    rng = canvas.rng
    distance = ellipse(
        canvas.x, canvas.y, tuple(place), (radius, radius * canvas.uniform(0.6, 1.0)), canvas.uniform(0, 3)
    )
    distance = distance + np.float32(0.22 * radius) * smooth_noise(
        rng, int(np.clip(2.0 / radius, 3, canvas.size // 2)), canvas.size
    )
    points = place + rng.normal(0, radius * 0.42, (rng.integers(12, 40), 2))
    dots = np.clip(speckles(rng, canvas.size, points, radius * 0.2), 0, 1.5)
    mask = soft(distance, canvas.edge)
    canvas.stains[CYTOPLASM] += 0.35 * mask
    canvas.stains[AZURE] += mask * (0.25 + 0.75 * dots)
