"""Colon and lung as an H&E section shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .optics import HE_STAINS, Patient
from .shapes import Array, ellipse, fractal_noise, grid, smooth_noise, soft
from .tissue_shapes import (
    Nuclei,
    cell_borders,
    fibers,
    jittered_points,
    level_field,
    make_nuclei,
    sample,
    stamp,
    where,
)

TISSUE_CLASSES = ("colon_aca", "colon_n", "lung_aca", "lung_n", "lung_scc")
HEMATOXYLIN, EOSIN, RED, PIGMENT = range(len(HE_STAINS))


@dataclass
class Section:
    """What all parts of one tile share."""

    rng: np.random.Generator
    size: int
    unit: float  # half the length of an epithelial nucleus, in half image sides
    x: Array
    y: Array
    stains: Array  # (S, H, W)
    cover: Array  # (H, W) where nuclei lie
    texture: Array  # (H, W) chromatin, relative

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def hills(self, length: float) -> int:
        """How many hills of a given length fit along a side."""
        return int(np.clip(2.0 / length, 2, self.size // 2))

    def lay(self, nuclei: Nuclei) -> None:
        """Stamps nuclei into the section."""
        stamp(self.stains[HEMATOXYLIN], self.cover, nuclei, self.texture, self.rng)


def draw_tissue(class_name: str, rng: np.random.Generator, patient: Patient, size: int) -> np.ndarray:
    """The stains of one tile of tissue.

    Args:
        class_name: one of `TISSUE_CLASSES`.
        rng: decides the tissue.
        patient: its scale sets the magnification.
        size: side of the tile in pixels.

    Returns:
        Concentrations in the order of `HE_STAINS`, shape (4, size, size), float32, 0 or more.

    Raises:
        ValueError: for a class that is not in `TISSUE_CLASSES`.
    """
    if class_name not in PARTS:
        raise ValueError(f"There is no tissue {class_name!r}. Choose one of {', '.join(TISSUE_CLASSES)}.")
    x, y = grid(size)
    unit = float(np.clip(0.055 * patient.scale * np.exp(rng.normal(0.0, 0.2)), 0.026, 0.11))
    section = Section(
        rng,
        size,
        unit,
        x,
        y,
        np.zeros((len(HE_STAINS), size, size), np.float32),
        np.zeros((size, size), np.float32),
        np.float32(rng.uniform(0.1, 0.3)) * smooth_noise(rng, int(np.clip(5.0 / unit, 4, size // 2)), size),
    )
    PARTS[class_name](section)
    stains = section.stains
    stains[EOSIN] *= 1 - 0.55 * section.cover
    stains[EOSIN] *= 1 + 0.10 * fractal_noise(rng, int(np.clip(30, 4, size // 2)), size, 2)
    return np.clip(stains, 0.0, None)


def _stroma(section: Section, amount: float, gaps: float, cells: float, spindles: float) -> None:
    """Pink fibers everywhere, white gaps, round inflammatory cells and spindle nuclei; glands are laid over them."""
    rng, size, unit = section.rng, section.size, section.unit
    flow = section.uniform(0, np.pi)
    streaks = fibers(rng, size, section.hills(unit * 3.5), flow)
    open_space = soft(section.uniform(1.0, 1.6) - gaps - fractal_noise(rng, section.hills(unit * 6), size, 3), 0.15)
    section.stains[EOSIN] += np.clip(amount * (1 + 0.35 * streaks), 0.02, None) * (1 - 0.9 * open_space)
    section.stains[HEMATOXYLIN] += 0.12 * amount
    crowd = np.clip(cells * (0.6 + 0.6 * smooth_noise(rng, 3, size)), 0, 1)
    round_cells = where(jittered_points(rng, unit * 2.0), crowd, rng)
    section.lay(make_nuclei(rng, round_cells, unit * 0.6, 0.88, density=section.uniform(1.0, 1.5), rim=0.15))
    if spindles:
        places = where(jittered_points(rng, unit * 3.2), np.full((size, size), spindles), rng)
        section.lay(make_nuclei(rng, places, unit * 1.25, 0.28, np.full(len(places), flow), section.uniform(0.8, 1.2)))


def _red_cells(section: Section, places: Array, tone: float) -> None:
    """Bright red cells at given places."""
    layer, cover = np.zeros_like(section.cover), np.zeros_like(section.cover)
    cells = make_nuclei(section.rng, places, section.unit * 0.75, 0.85, density=tone, rim=0.25)
    stamp(layer, cover, cells, np.zeros_like(layer), section.rng)
    for stain in (HEMATOXYLIN, EOSIN):
        section.stains[stain] *= 1 - 0.85 * cover
    section.stains[RED] += layer


def _colon_normal(section: Section) -> None:
    rng, unit = section.rng, section.unit
    _stroma(section, section.uniform(0.15, 0.4), section.uniform(0.1, 0.7), section.uniform(0.12, 0.5), 0.2)
    reach = unit * section.uniform(5.0, 8.5)
    stretch = section.uniform(1.6, 3.2) if rng.random() < 0.25 else section.uniform(1.0, 1.35)
    turn, spread = section.uniform(0, np.pi), section.uniform(2.15, 2.7)
    points = jittered_points(rng, reach * spread, 0.10)
    shear = np.array([np.cos(turn), np.sin(turn)])
    points = points + np.outer(points @ shear, shear) * (stretch - 1) + rng.uniform(-0.5, 0.5, 2) * reach
    mucin, vesicles = section.uniform(0.45, 1.0), section.uniform(0.5, 1.0)
    tone = section.uniform(0.85, 1.35)
    for place in points[(np.abs(points) < 1 + reach * stretch).all(axis=1)]:
        radius = reach * section.uniform(0.85, 1.12)
        _crypt(
            section,
            place,
            radius,
            stretch * section.uniform(0.9, 1.1),
            turn + rng.normal(0, 0.15),
            mucin,
            vesicles,
            tone,
        )
    if rng.random() < 0.4:
        _red_cells(section, rng.uniform(-1, 1, (rng.integers(2, 15), 2)), section.uniform(0.6, 1.0))


def _crypt(
    section: Section,
    place: Array,
    radius: float,
    stretch: float,
    turn: float,
    mucin: float,
    vesicles: float,
    tone: float,
) -> None:
    """A gland in cross section: nuclei at its border, goblet vacuoles within, a small lumen in the middle."""
    rng, unit = section.rng, section.unit
    outline = ellipse(section.x, section.y, tuple(place), (radius * stretch, radius), turn)
    outline = outline + np.float32(0.05 * radius) * smooth_noise(rng, section.hills(radius * 0.8), section.size)
    inside = soft(outline, 2.0 / section.size)
    for stain in (EOSIN, HEMATOXYLIN, RED):
        section.stains[stain] *= 1 - inside
    section.cover *= 1 - inside
    section.stains[EOSIN] += inside * section.uniform(0.25, 0.42)
    section.stains[HEMATOXYLIN] += inside * section.uniform(0.08, 0.2)
    count = int(np.clip(2 * np.pi * radius * (1 + stretch) / 2 / (unit * 1.25), 8, 64))
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.normal(0, 0.25 / count, count)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    circle = np.stack([np.cos(angles) * stretch, np.sin(angles)], axis=1) @ axes * radius
    outward = np.arctan2(circle[:, 1], circle[:, 0])
    rings = [(0.60, 0.24, 1.0)] if radius < unit * 6 else [(0.66, 0.19, 1.0), (0.36, 0.15, 0.6)]
    for depth, length, share in rings:
        keep = np.arange(count) % 2 == 0 if depth > 0.5 else np.arange(count) % 4 == 1
        keep &= rng.random(count) < mucin * share
        holes = np.zeros_like(section.cover)
        bubble = make_nuclei(
            rng,
            place + circle[keep] * depth * rng.uniform(0.9, 1.1, (keep.sum(), 1)),
            radius * length * 0.95,
            min(0.95, 2.3 * unit / (radius * length)),
            outward[keep],
            1.0,
            0.15,
            rim=0.0,
        )
        stamp(np.zeros_like(holes), holes, bubble, np.zeros_like(holes), rng)
        section.stains[EOSIN] *= 1 - 0.88 * vesicles * holes
        section.stains[HEMATOXYLIN] = section.stains[HEMATOXYLIN] * (1 - 0.5 * holes) + 0.03 * holes
    lumen = soft(ellipse(section.x, section.y, tuple(place), (radius * 0.16 * stretch, radius * 0.12), turn), 0.03)
    section.stains[EOSIN] *= 1 - 0.8 * lumen
    nuclei = make_nuclei(
        rng,
        place + circle * rng.normal(0.91, 0.025, (count, 1)),
        unit * section.uniform(0.75, 0.95),
        0.62,
        outward,
        tone,
        0.12,
        rim=0.25,
    )
    section.lay(nuclei)


def _glands(
    section: Section,
    hills: int,
    lumen_at: float,
    edge_at: float,
    spacing: float,
    aspect: float,
    upright: bool,
    **look: float,
) -> Array:
    """Irregular glands along the levels of a random landscape, crowded with nuclei; gives the lumen mask."""
    rng, size, unit = section.rng, section.size, section.unit
    field, slope = level_field(rng, hills, size)
    lumen, epithelium = soft(lumen_at - field, 0.10), soft(edge_at - field, 0.06)
    for stain in (EOSIN, HEMATOXYLIN, RED):
        section.stains[stain] *= 1 - epithelium
    section.cover *= 1 - epithelium
    body = epithelium * (1 - lumen)
    section.stains[EOSIN] += body * section.uniform(0.28, 0.5)
    section.stains[HEMATOXYLIN] += body * section.uniform(0.15, 0.38)
    places = where(jittered_points(rng, unit * spacing), np.clip(body * 1.2 - 0.15, 0, 1), rng)
    angles = sample(slope, places) if upright else None
    section.lay(make_nuclei(rng, places, unit * look.pop("length", 1.2), aspect, angles, **look))
    return lumen


def _colon_cancer(section: Section) -> None:
    rng, unit, size = section.rng, section.unit, section.size
    _stroma(
        section,
        section.uniform(0.3, 0.65),
        section.uniform(-0.2, 0.5),
        section.uniform(0.05, 0.3),
        section.uniform(0.1, 0.6),
    )
    solid = rng.random() < 0.25
    hills = section.hills(unit * section.uniform(9, 17))
    lumen = _glands(
        section,
        hills,
        section.uniform(1.5, 2.6) if solid else section.uniform(0.5, 1.2),
        section.uniform(-0.9, -0.1),
        section.uniform(1.35, 1.9),
        section.uniform(0.4, 0.7),
        rng.random() < 0.8,
        length=section.uniform(1.15, 1.75),
        density=section.uniform(0.8, 1.35),
        spread=0.22,
        rim=section.uniform(0.15, 0.7),
        nucleolus=section.uniform(0, 0.35),
    )
    debris = np.clip(fractal_noise(rng, section.hills(unit * 1.5), size, 3) - section.uniform(0.2, 1.8), 0, 2)
    section.stains[EOSIN] += lumen * 0.3 * debris
    section.stains[HEMATOXYLIN] += lumen * 0.35 * debris
    if rng.random() < 0.5:
        _red_cells(section, rng.uniform(-1, 1, (rng.integers(3, 25), 2)), section.uniform(0.6, 1.0))


def _lung_normal(section: Section) -> None:
    rng, unit, size = section.rng, section.unit, section.size
    field, slope = level_field(rng, section.hills(unit * section.uniform(9, 16)), size, 2)
    width = section.uniform(0.14, 0.42)
    septa = soft((np.abs(field) - width) * 0.1, 0.006)
    section.stains[EOSIN] += septa * np.clip(
        section.uniform(0.3, 0.55) * (1 + 0.4 * fibers(rng, size, 14, 0.5)), 0.05, None
    )
    section.stains[HEMATOXYLIN] += 0.06 * septa
    section.stains[EOSIN] += 0.015
    places = where(jittered_points(rng, unit * 2.1), np.clip(septa * section.uniform(0.2, 0.5), 0, 1), rng)
    angles = sample(slope, places) + np.pi / 2
    section.lay(make_nuclei(rng, places, unit * 0.85, 0.55, angles, section.uniform(0.9, 1.4), 0.25, rim=0.2))
    blood = section.uniform(0.02, 0.5)
    inside = np.clip(septa * blood + (0.06 if rng.random() < 0.4 else 0.0), 0, 1)
    _red_cells(section, where(jittered_points(rng, unit * 1.7), inside, rng), section.uniform(0.7, 1.3))
    for _ in range(rng.poisson(0.7)):  # macrophages with pigment
        place = rng.uniform(-0.9, 0.9, 2)
        body = soft(ellipse(section.x, section.y, tuple(place), (unit * 2.0, unit * 1.7), 0.3), 2.5 / size)
        section.stains[EOSIN] = section.stains[EOSIN] * (1 - body) + 0.22 * body
        section.stains[PIGMENT] += (
            body * np.clip(0.5 * fractal_noise(rng, section.hills(unit), size, 2), 0, None) * section.uniform(0, 1)
        )
        section.lay(make_nuclei(rng, place[None] + unit * 0.5, unit * 0.8, 0.8, density=1.1))


def _lung_cancer(section: Section) -> None:
    rng, unit, size = section.rng, section.unit, section.size
    _stroma(
        section,
        section.uniform(0.2, 0.5),
        section.uniform(0.0, 0.9),
        section.uniform(0.05, 0.3),
        section.uniform(0.0, 0.4),
    )
    lumen = _glands(
        section,
        section.hills(unit * section.uniform(5, 9)),
        section.uniform(0.7, 1.4),
        section.uniform(-0.5, 0.3),
        section.uniform(1.6, 2.3),
        section.uniform(0.6, 0.9),
        rng.random() < 0.4,
        length=section.uniform(1.2, 1.9),
        density=section.uniform(0.9, 1.5),
        spread=0.28,
        rim=section.uniform(0.2, 0.7),
        nucleolus=section.uniform(0.2, 0.8),
    )
    haze = np.clip(section.uniform(-0.3, 0.5) + 0.2 * fractal_noise(rng, 6, size, 2), 0, 1)
    section.stains[EOSIN] += lumen * 0.2 * haze
    section.stains[HEMATOXYLIN] += lumen * 0.22 * haze
    if rng.random() < 0.4:
        _red_cells(section, rng.uniform(-1, 1, (rng.integers(3, 20), 2)), section.uniform(0.6, 1.0))


def _lung_squamous(section: Section) -> None:
    rng, unit, size = section.rng, section.unit, section.size
    flow = section.uniform(0, np.pi)
    bend = flow + 0.7 * smooth_noise(rng, 3, size)
    spacing = unit * section.uniform(1.7, 2.9)
    points = jittered_points(rng, spacing)
    section.stains[EOSIN] += np.clip(section.uniform(0.35, 0.65) + 0.08 * fractal_noise(rng, 5, size, 2), 0.05, None)
    section.stains[HEMATOXYLIN] += np.clip(section.uniform(0.2, 0.5) + 0.05 * fractal_noise(rng, 5, size, 2), 0, None)
    borders = cell_borders(points, section.x, section.y, unit * 0.22)
    strength = section.uniform(-0.5, 0.6)
    section.stains[EOSIN] *= 1 + strength * borders
    section.stains[HEMATOXYLIN] *= 1 + 0.6 * strength * borders
    keep = rng.random(len(points)) < section.uniform(0.75, 0.97)
    places = points[keep] + rng.normal(0, 0.06 * unit, (int(keep.sum()), 2))
    section.lay(
        make_nuclei(
            rng,
            places,
            unit * section.uniform(1.0, 1.5),
            section.uniform(0.42, 0.85),
            sample(bend, places),
            section.uniform(0.85, 1.4),
            0.24,
            rim=section.uniform(0.15, 0.65),
            nucleolus=section.uniform(0.0, 0.5),
        )
    )
    if rng.random() < 0.4:  # keratin
        pearl = soft(section.uniform(0.8, 1.6) - fractal_noise(rng, section.hills(unit * 9), size, 2), 0.12)
        section.stains[EOSIN] += pearl * (0.5 + 0.2 * fibers(rng, size, 12, flow))
        section.stains[HEMATOXYLIN] *= 1 - 0.75 * pearl
    if rng.random() < 0.5:  # clefts between nests, with stroma cells
        field, _ = level_field(rng, section.hills(unit * 10), size)
        cleft = soft(section.uniform(1.0, 1.8) - field, 0.08)
        section.stains *= 1 - cleft * section.uniform(0.5, 0.95)
        small = where(jittered_points(rng, unit * 1.8), 0.5 * cleft, rng)
        section.lay(make_nuclei(rng, small, unit * 0.6, 0.85, density=1.3))


PARTS: dict[str, Callable[[Section], None]] = {
    "colon_aca": _colon_cancer,
    "colon_n": _colon_normal,
    "lung_aca": _lung_cancer,
    "lung_n": _lung_normal,
    "lung_scc": _lung_squamous,
}
