"""Blood cells as a May-Gruenwald-Giemsa smear shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .optics import GIEMSA_STAINS, Patient
from .shapes import Array, capsule, ellipse, fractal_noise, grid, smooth_noise, smooth_union, soft, speckles
from .smear import AZURE, CYTOPLASM, EOSIN, NUCLEUS, RED, Canvas, lay_platelet, lay_smear

CELL_CLASSES = (
    "neutrophil",
    "lymphocyte",
    "monocyte",
    "eosinophil",
    "basophil",
    "erythroblast",
    "immature_granulocyte",
    "platelet",
)


@dataclass
class Body:
    """Place, size and outline of the white cell."""

    center: Array  # (2,)
    radius: float
    distance: Array  # (H, W) signed distance to the cell's outline, negative inside


def draw_cell(class_name: str, rng: np.random.Generator, patient: Patient, size: int) -> np.ndarray:
    """The stains of one single-cell image, the cell near its middle.

    Args:
        class_name: one of `CELL_CLASSES`.
        rng: decides the cell and its neighbors.
        patient: its scale sets the magnification.
        size: side of the image in pixels.

    Returns:
        Concentrations in the order of `GIEMSA_STAINS`, shape (5, size, size), float32, 0 or more.

    Raises:
        ValueError: for a class that is not in `CELL_CLASSES`.
    """
    if class_name not in PARTS:
        raise ValueError(f"There is no blood cell {class_name!r}. Choose one of {', '.join(CELL_CLASSES)}.")
    x, y = grid(size)
    canvas = Canvas(rng, size, x, y, np.zeros((len(GIEMSA_STAINS), size, size), np.float32), 2.2 / size)
    unit = float(np.clip(0.52 * patient.scale * np.exp(rng.normal(0.0, 0.12)), 0.28, 0.86))  # neutrophil radius
    draw, relative = PARTS[class_name]
    radius = unit * relative * float(np.exp(rng.normal(0.0, 0.07)))
    center = rng.normal(0.0, 0.05, 2)
    lay_smear(canvas, unit, center, radius)
    draw(canvas, _outline(canvas, center, radius, rng.uniform(0.01, 0.07)))
    return np.clip(canvas.stains, 0.0, None)


def _outline(canvas: Canvas, center: Array, radius: float, roughness: float) -> Body:
    angle = canvas.uniform(0, np.pi)
    stretch = canvas.uniform(0.88, 1.0)
    distance = ellipse(canvas.x, canvas.y, tuple(center), (radius, radius * stretch), angle)
    distance = distance + np.float32(radius * roughness) * smooth_noise(
        canvas.rng, max(3, int(2.2 / radius)), canvas.size
    )
    if canvas.rng.random() < 0.08:  # a bleb
        turn = canvas.uniform(0, 2 * np.pi)
        place = center + radius * np.array([np.cos(turn), np.sin(turn)])
        bleb = ellipse(canvas.x, canvas.y, tuple(place), (radius * 0.25, radius * 0.2), turn)
        distance = smooth_union(distance, bleb, radius * 0.1)
    return Body(center, radius, distance)


def _chromatin(canvas: Canvas, distance: Array, radius: float, density: float, clumps: float, grain: float) -> Array:
    """Nuclear stain inside a signed distance: clumped chromatin and a darker rim."""
    mask = soft(distance, canvas.edge)
    hills = int(np.clip(2.0 / (radius * grain), 4, canvas.size // 2))
    texture = fractal_noise(canvas.rng, hills, canvas.size, 2)
    rim = np.exp(-np.square((distance + 0.05 * radius) / np.float32(0.07 * radius)))
    return mask * np.clip(density * (1.0 + clumps * texture + 0.18 * rim), 0.15, None)


def _nucleus(
    canvas: Canvas, distance: Array, body: Body, density: float, clumps: float = 0.16, grain: float = 0.22
) -> Array:
    """Lays a nucleus down and gives its mask; it covers what lies beneath."""
    distance = np.maximum(distance, body.distance + np.float32(0.02 * body.radius))
    mask = soft(distance, canvas.edge)
    for stain in (CYTOPLASM, EOSIN, AZURE, RED):
        canvas.stains[stain] *= 1 - 0.85 * mask
    canvas.stains[NUCLEUS] += _chromatin(canvas, distance, body.radius, density, clumps, grain)
    return mask


def _cytoplasm(canvas: Canvas, body: Body, blue: float, pink: float, mottle: float, rim: float = 0.2) -> Array:
    """Lays the cell's body down and gives its mask; red cells beneath it vanish."""
    mask = soft(body.distance, canvas.edge)
    hills = int(np.clip(1.6 / (body.radius * 0.25), 4, canvas.size // 2))
    texture = 1 + mottle * fractal_noise(canvas.rng, hills, canvas.size, 2)
    border = np.exp(-np.square((body.distance + 0.04 * body.radius) / np.float32(0.05 * body.radius)))
    canvas.stains *= 1 - mask
    canvas.stains[CYTOPLASM] += mask * np.clip(blue * texture * (1 + rim * border), 0, None)
    canvas.stains[EOSIN] += mask * np.clip(pink * texture, 0, None)
    return mask


def _granules(canvas: Canvas, body: Body, stain: int, count: int, radius: float, strength: float) -> None:
    """Scatters granules through the cell's body."""
    rng = canvas.rng
    turn, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count)) * body.radius
    points = body.center + np.stack([np.cos(turn), np.sin(turn)], axis=1) * reach[:, None]
    dots = np.clip(speckles(rng, canvas.size, points, radius, rng.uniform(0.6, 1.2, count)), 0, 1.3)
    canvas.stains[stain] += soft(body.distance + np.float32(0.5 * radius), canvas.edge) * dots * np.float32(strength)


def _lobes(canvas: Canvas, body: Body, count: int, size: float) -> Array:
    """Signed distance to lobes on an arc, joined by thin bridges."""
    start, turn = canvas.uniform(0, 2 * np.pi), canvas.rng.choice([-1.0, 1.0])
    span = {2: 2.2, 3: 3.6, 4: 4.4, 5: 5.0}[count] * canvas.uniform(0.75, 1.1)
    angles = start + turn * np.linspace(0, span, count) + canvas.rng.normal(0, 0.12, count)
    reach = body.radius * canvas.rng.uniform(0.38, 0.56, count)
    places = body.center + np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach[:, None]
    distance = np.full_like(canvas.x, 10.0)  # far outside
    for place in places:
        radii = body.radius * size * canvas.rng.uniform(0.85, 1.2) * np.array([1.0, canvas.uniform(0.68, 1.0)])
        lobe = ellipse(canvas.x, canvas.y, tuple(place), tuple(radii), canvas.uniform(0, np.pi))
        distance = smooth_union(distance, lobe, 0.05 * body.radius)
    for before, after in zip(places[:-1], places[1:]):
        bridge = capsule(canvas.x, canvas.y, before, after, body.radius * canvas.uniform(0.05, 0.13))
        distance = smooth_union(distance, bridge, 0.08 * body.radius)
    noise = smooth_noise(canvas.rng, int(np.clip(2.0 / (0.4 * body.radius), 3, 40)), canvas.size)
    return distance + np.float32(0.035 * body.radius) * noise


def _band(canvas: Canvas, body: Body) -> Array:
    """Signed distance to a horseshoe."""
    start, span = canvas.uniform(0, 2 * np.pi), canvas.uniform(2.6, 4.6)
    angles = np.linspace(start, start + span, 7)
    reach = body.radius * canvas.uniform(0.42, 0.54)
    places = body.center + np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach
    widths = body.radius * (canvas.uniform(0.16, 0.24) + canvas.rng.normal(0, 0.03, 6))
    distance = capsule(canvas.x, canvas.y, places[0], places[1], widths[0])
    for index in range(1, 6):
        part = capsule(canvas.x, canvas.y, places[index], places[index + 1], widths[index])
        distance = smooth_union(distance, part, 0.08 * body.radius)
    return distance


def _round_nucleus(canvas: Canvas, body: Body, size: float, offset: float, rough: float, dent: float = 0.0) -> Array:
    """Signed distance to a round or oval nucleus, dented when asked."""
    turn = canvas.uniform(0, 2 * np.pi)
    place = body.center + body.radius * offset * np.array([np.cos(turn), np.sin(turn)])
    radii = body.radius * size * np.array([1.0, canvas.uniform(0.82, 1.0)])
    distance = ellipse(canvas.x, canvas.y, tuple(place), tuple(radii), canvas.uniform(0, np.pi))
    if dent > 0:
        side = canvas.uniform(0, 2 * np.pi)
        notch_place = place + radii[0] * canvas.uniform(0.75, 1.05) * np.array([np.cos(side), np.sin(side)])
        notch = ellipse(canvas.x, canvas.y, tuple(notch_place), (radii[0] * dent, radii[0] * dent * 0.7), side)
        distance = -smooth_union(-distance, notch, 0.12 * radii[0])
    hills = int(np.clip(2.0 / (0.7 * radii[0]), 3, 30))
    return distance + np.float32(rough * body.radius) * smooth_noise(canvas.rng, hills, canvas.size)


def _neutrophil(canvas: Canvas, body: Body) -> None:
    _cytoplasm(canvas, body, canvas.uniform(0.06, 0.20), canvas.uniform(0.05, 0.22), 0.25)
    _granules(canvas, body, AZURE, int(canvas.uniform(120, 320)), body.radius * 0.035, canvas.uniform(0.08, 0.35))
    if canvas.rng.random() < 0.25:
        distance = _band(canvas, body)
    else:
        count = int(canvas.rng.choice([2, 3, 4, 5], p=[0.2, 0.4, 0.3, 0.1]))
        distance = _lobes(canvas, body, count, {2: 0.36, 3: 0.31, 4: 0.27, 5: 0.24}[count])
    _nucleus(canvas, distance, body, canvas.uniform(0.85, 1.35), 0.14)


def _eosinophil(canvas: Canvas, body: Body) -> None:
    _cytoplasm(canvas, body, canvas.uniform(0.02, 0.15), canvas.uniform(0.15, 0.4), 0.2)
    grain = body.radius * canvas.uniform(0.055, 0.085)
    _granules(canvas, body, EOSIN, int(canvas.uniform(170, 330)), grain, canvas.uniform(0.45, 0.95))
    count = int(canvas.rng.choice([2, 3], p=[0.8, 0.2]))
    covered = canvas.stains[EOSIN].copy()
    mask = _nucleus(canvas, _lobes(canvas, body, count, 0.37 if count == 2 else 0.3), body, canvas.uniform(0.75, 1.2))
    canvas.stains[EOSIN] += canvas.uniform(0.0, 0.3) * covered * mask  # granules above the nucleus


def _basophil(canvas: Canvas, body: Body) -> None:
    _cytoplasm(canvas, body, canvas.uniform(0.12, 0.3), canvas.uniform(0.03, 0.12), 0.25)
    _nucleus(
        canvas, _round_nucleus(canvas, body, canvas.uniform(0.62, 0.85), 0.12, 0.10), body, canvas.uniform(0.6, 0.95)
    )
    grain = body.radius * canvas.uniform(0.06, 0.095)
    _granules(canvas, body, AZURE, int(canvas.uniform(70, 200)), grain, canvas.uniform(0.8, 1.4))


def _lymphocyte(canvas: Canvas, body: Body) -> None:
    _cytoplasm(canvas, body, canvas.uniform(0.25, 0.6), 0.02, 0.15, 0.3)
    size = canvas.uniform(0.74, 0.95)
    distance = _round_nucleus(
        canvas, body, size, 0.9 * (1 - size), 0.02, canvas.rng.choice([0.0, 0.25], p=[0.75, 0.25])
    )
    _nucleus(canvas, distance, body, canvas.uniform(1.0, 1.5), 0.13, 0.34)


def _monocyte(canvas: Canvas, body: Body) -> None:
    _cytoplasm(canvas, body, canvas.uniform(0.28, 0.55), canvas.uniform(0.02, 0.1), 0.22, 0.1)
    _granules(canvas, body, AZURE, int(canvas.uniform(60, 250)), body.radius * 0.03, canvas.uniform(0.05, 0.22))
    vacuoles = canvas.rng.poisson(1.2)
    for _ in range(vacuoles):
        place = body.center + canvas.rng.normal(0, 0.45 * body.radius, 2)
        hole = soft(ellipse(canvas.x, canvas.y, tuple(place), (body.radius * 0.07,) * 2, 0.0), canvas.edge)
        canvas.stains[CYTOPLASM] *= 1 - 0.8 * hole
    distance = _round_nucleus(canvas, body, canvas.uniform(0.62, 0.78), 0.14, 0.05, canvas.uniform(0.35, 0.75))
    _nucleus(canvas, distance, body, canvas.uniform(0.62, 1.0), 0.28, 0.3)


def _erythroblast(canvas: Canvas, body: Body) -> None:
    _cytoplasm(canvas, body, canvas.uniform(0.15, 0.55), 0.05, 0.12, 0.15)
    canvas.stains[RED] += soft(body.distance, canvas.edge) * np.float32(canvas.uniform(0.05, 0.4))
    distance = _round_nucleus(canvas, body, canvas.uniform(0.48, 0.72), canvas.uniform(0.05, 0.3), 0.02)
    _nucleus(canvas, distance, body, canvas.uniform(1.3, 1.9), 0.12, 0.3)


def _immature_granulocyte(canvas: Canvas, body: Body) -> None:
    _cytoplasm(canvas, body, canvas.uniform(0.2, 0.5), canvas.uniform(0.05, 0.2), 0.25, 0.12)
    _granules(canvas, body, AZURE, int(canvas.uniform(150, 380)), body.radius * 0.04, canvas.uniform(0.15, 0.5))
    size = canvas.uniform(0.58, 0.84)
    dent = canvas.rng.choice([0.0, 0.35], p=[0.55, 0.45])
    distance = _round_nucleus(canvas, body, size, 0.85 * (1 - size), 0.03, dent)
    _nucleus(canvas, distance, body, canvas.uniform(0.75, 1.15), 0.24, 0.16)
    dust = canvas.uniform(0.02, 0.12)
    _granules(canvas, body, AZURE, 150, body.radius * 0.04, dust)


def _platelet(canvas: Canvas, body: Body) -> None:
    lay_platelet(canvas, body.center, body.radius)
    for _ in range(canvas.rng.poisson(0.3)):
        lay_platelet(canvas, body.center + canvas.rng.normal(0, 2.5 * body.radius, 2), body.radius * 0.8)


# class: (what draws it, its radius relative to a neutrophil's)
PARTS: dict[str, tuple[Callable[[Canvas, Body], None], float]] = {
    "neutrophil": (_neutrophil, 1.0),
    "lymphocyte": (_lymphocyte, 0.76),
    "monocyte": (_monocyte, 1.17),
    "eosinophil": (_eosinophil, 1.03),
    "basophil": (_basophil, 0.97),
    "erythroblast": (_erythroblast, 0.72),
    "immature_granulocyte": (_immature_granulocyte, 1.12),
    "platelet": (_platelet, 0.27),
}
