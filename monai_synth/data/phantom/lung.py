"""Lung as an H&E section shows it."""

from __future__ import annotations

import numpy as np

from .section import EOSIN, HEMATOXYLIN, PIGMENT, Section, lay_glands, lay_red_cells, lay_stroma
from .shapes import ellipse, fractal_noise, smooth_noise, soft
from .tissue_shapes import cell_borders, fibers, jittered_points, level_field, make_nuclei, sample, where


def draw_lung_normal(section: Section) -> None:
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
    lay_red_cells(section, where(jittered_points(rng, unit * 1.7), inside, rng), section.uniform(0.7, 1.3))
    for _ in range(rng.poisson(0.7)):  # macrophages with pigment
        place = rng.uniform(-0.9, 0.9, 2)
        body = soft(ellipse(section.x, section.y, tuple(place), (unit * 2.0, unit * 1.7), 0.3), 2.5 / size)
        section.stains[EOSIN] = section.stains[EOSIN] * (1 - body) + 0.22 * body
        section.stains[PIGMENT] += (
            body * np.clip(0.5 * fractal_noise(rng, section.hills(unit), size, 2), 0, None) * section.uniform(0, 1)
        )
        section.lay(make_nuclei(rng, place[None] + unit * 0.5, unit * 0.8, 0.8, density=1.1))


def draw_lung_cancer(section: Section) -> None:
    rng, unit, size = section.rng, section.unit, section.size
    lay_stroma(
        section,
        section.uniform(0.2, 0.5),
        section.uniform(0.0, 0.9),
        section.uniform(0.05, 0.3),
        section.uniform(0.0, 0.4),
    )
    lumen = lay_glands(
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
        lay_red_cells(section, rng.uniform(-1, 1, (rng.integers(3, 20), 2)), section.uniform(0.6, 1.0))


def draw_lung_squamous(section: Section) -> None:
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
