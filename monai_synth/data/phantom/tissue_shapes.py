"""Nuclei, fibers and cell borders of H&E tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .shapes import Array, fractal_noise, smooth_noise, soft


@dataclass
class Nuclei:
    """A set of nuclei; arrays of length n in units of half the image side."""

    places: Array  # (n, 2)
    lengths: Array  # half the long axis
    widths: Array  # half the short axis
    angles: Array  # of the long axis
    density: Array  # amount of hematoxylin
    rim: float = 0.2  # how much darker the edge is than the middle; near 1 is a vesicular nucleus
    nucleolus: float = 0.0  # amount of stain in a nucleolus


def jittered_points(rng: np.random.Generator, spacing: float, jitter: float = 0.38) -> Array:
    """Points about `spacing` apart over the image and a little beyond, shape (n, 2)."""
    axis = np.arange(-1.15, 1.15, spacing)
    x, y = np.meshgrid(axis, np.arange(-1.15, 1.15, spacing * 0.87))
    x = x + np.where(np.arange(len(y)) % 2, 0.5 * spacing, 0.0)[:, None]
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    return points + rng.uniform(-jitter, jitter, points.shape) * spacing


def sample(field: Array, points: Array) -> Array:
    """Values of a field (H, W) at points (n, 2), those outside taken from the border."""
    size = field.shape[0]
    index = np.clip(((points + 1) / 2 * size).astype(int), 0, size - 1)
    return field[index[:, 1], index[:, 0]]


def where(points: Array, probability: Array, rng: np.random.Generator) -> Array:
    """The points that survive a probability field of shape (H, W)."""
    return points[sample(probability, points) > rng.uniform(0, 1, len(points))]


def make_nuclei(
    rng: np.random.Generator,
    places: Array,
    length: float,
    aspect: float,
    angles: Array | None = None,
    density: float = 1.0,
    spread: float = 0.18,
    **appearance: float,
) -> Nuclei:
    """Nuclei at given places, their sizes and densities spread by a relative amount."""
    count = len(places)
    lengths = length * np.exp(rng.normal(0, spread, count))
    widths = lengths * np.clip(aspect * np.exp(rng.normal(0, 0.6 * spread, count)), 0.2, 1.0)
    turns = rng.uniform(0, np.pi, count) if angles is None else angles + rng.normal(0, 0.25, count)
    return Nuclei(places, lengths, widths, turns, density * np.exp(rng.normal(0, 0.8 * spread, count)), **appearance)


def stamp(stain: Array, cover: Array, nuclei: Nuclei, texture: Array, rng: np.random.Generator) -> None:
    """Lays nuclei into the hematoxylin plane and marks them in `cover`, later ones over earlier ones.

    All windows are computed at once, each as large as the largest nucleus needs; only the laying down is a loop.
    """
    size = stain.shape[0]
    edge = 1.6 / size
    corners = np.floor((nuclei.places - nuclei.lengths[:, None] + 1) / 2 * size - 1.5).astype(int)
    side = int(np.ceil((nuclei.lengths.max() * size if len(corners) else 0) + 4))
    seen = np.nonzero(((corners < size) & (corners + side > 0)).all(axis=1))[0]
    masks, amounts = _windows(nuclei, seen, corners[seen], side, size, edge, rng)
    for index, mask, amount in zip(seen, masks, amounts):
        left, top = corners[index]
        rows, columns = slice(max(top, 0), min(top + side, size)), slice(max(left, 0), min(left + side, size))
        part = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        mask, amount = mask[part], np.maximum(amount[part] + texture[rows, columns], 0.1)
        stain[rows, columns] = np.maximum(
            stain[rows, columns] * (1 - 0.5 * mask), nuclei.density[index] * mask * amount
        )
        cover[rows, columns] = np.maximum(cover[rows, columns], mask)


def _windows(
    nuclei: Nuclei, seen: Array, corners: Array, side: int, size: int, edge: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Masks and amounts of stain in the windows of the nuclei that are seen, both of shape (n, side, side)."""
    pixels = (np.arange(side, dtype=np.float32) + 0.5) / size * 2 - 1
    offsets = (corners / size * 2 - nuclei.places[seen]).astype(np.float32)
    x, y = (pixels + offsets[:, :1])[:, None, :], (pixels + offsets[:, 1:])[:, :, None]
    turn = nuclei.angles[seen].astype(np.float32)[:, None, None]
    length, width = (values[seen].astype(np.float32)[:, None, None] for values in (nuclei.lengths, nuclei.widths))
    u = (np.cos(turn) * x + np.sin(turn) * y) / length
    v = (np.cos(turn) * y - np.sin(turn) * x) / width
    radius = np.sqrt(u * u + v * v)
    masks = soft((radius - 1) * width, edge)
    amounts = 1 - nuclei.rim + nuclei.rim * np.clip(radius, 0, 1) ** 4 * np.float32(1.35)
    if nuclei.nucleolus > 0:
        du, dv = rng.normal(0, 0.28, (2, len(seen), 1, 1)).astype(np.float32)
        amounts = amounts + nuclei.nucleolus * np.exp(-(np.square(u - du) + np.square(v - dv)) / np.float32(0.06))
    return masks, amounts


def fibers(rng: np.random.Generator, size: int, hills: int, flow: float) -> Array:
    """A streaky texture of unit spread whose streaks wander around the direction `flow`, shape (H, W)."""
    bend = smooth_noise(rng, 3, size) * np.float32(0.9)
    axis = np.linspace(0, 1, size, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    across = (-np.sin(flow) * x + np.cos(flow) * y) * hills + bend
    along = (np.cos(flow) * x + np.sin(flow) * y) * hills / 5
    phase = rng.uniform(0, 2 * np.pi, 3)
    waves = np.sin(2 * np.pi * across + phase[0] + 2 * np.sin(2 * np.pi * along + phase[1]))
    waves = waves + 0.7 * np.sin(2 * np.pi * 2.3 * across + phase[2] - 1.5 * np.sin(2 * np.pi * 1.7 * along))
    return (waves * (0.6 + 0.4 * smooth_noise(rng, 5, size)) * 0.7).astype(np.float32)


def cell_borders(points: Array, x: Array, y: Array, width: float) -> Array:
    """A mask of the borders between the cells around given points (a Voronoi diagram), shape (H, W)."""
    near, _ = cKDTree(points).query(np.stack([x.ravel(), y.ravel()], axis=1), k=2)
    gap = (near[:, 1] - near[:, 0]).reshape(x.shape).astype(np.float32)
    return np.exp(-np.square(gap / np.float32(width)))


def level_field(rng: np.random.Generator, hills: int, size: int, octaves: int = 3) -> tuple[Array, Array]:
    """A random landscape whose levels outline glands, and the direction of its slope, both of shape (H, W)."""
    field = fractal_noise(rng, hills, size, octaves)
    smooth = field if octaves == 1 else (field + np.roll(field, 1, 0) + np.roll(field, 1, 1)) / 3
    slope_y, slope_x = np.gradient(smooth)
    return field, np.arctan2(slope_y, slope_x)
