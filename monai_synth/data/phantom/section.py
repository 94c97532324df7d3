"""One tile of tissue while it is drawn, and what several tissues share: stroma, red cells, glands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .optics import HE_STAINS
from .shapes import Array, fractal_noise, smooth_noise, soft
from .tissue_shapes import Nuclei, fibers, jittered_points, level_field, make_nuclei, sample, stamp, where

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


def lay_stroma(section: Section, amount: float, gaps: float, cells: float, spindles: float) -> None:
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


def lay_red_cells(section: Section, places: Array, tone: float) -> None:
    """Bright red cells at given places."""
    layer, cover = np.zeros_like(section.cover), np.zeros_like(section.cover)
    cells = make_nuclei(section.rng, places, section.unit * 0.75, 0.85, density=tone, rim=0.25)
    stamp(layer, cover, cells, np.zeros_like(layer), section.rng)
    for stain in (HEMATOXYLIN, EOSIN):
        section.stains[stain] *= 1 - 0.85 * cover
    section.stains[RED] += layer


def lay_glands(
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
