"""Colon as an H&E section shows it."""

from __future__ import annotations

import numpy as np

from .section import EOSIN, HEMATOXYLIN, RED, Section, lay_glands, lay_red_cells, lay_stroma
from .shapes import Array, ellipse, fractal_noise, smooth_noise, soft
from .tissue_shapes import jittered_points, make_nuclei, stamp


def draw_colon_normal(section: Section) -> None:
    rng, unit = section.rng, section.unit
    lay_stroma(section, section.uniform(0.15, 0.4), section.uniform(0.1, 0.7), section.uniform(0.12, 0.5), 0.2)
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
        lay_red_cells(section, rng.uniform(-1, 1, (rng.integers(2, 15), 2)), section.uniform(0.6, 1.0))


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


def draw_colon_cancer(section: Section) -> None:
    rng, unit, size = section.rng, section.unit, section.size
    lay_stroma(
        section,
        section.uniform(0.3, 0.65),
        section.uniform(-0.2, 0.5),
        section.uniform(0.05, 0.3),
        section.uniform(0.1, 0.6),
    )
    solid = rng.random() < 0.25
    hills = section.hills(unit * section.uniform(9, 17))
    lumen = lay_glands(
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
        lay_red_cells(section, rng.uniform(-1, 1, (rng.integers(3, 25), 2)), section.uniform(0.6, 1.0))
