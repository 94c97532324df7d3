"""Soft-edged shapes and smooth noise on a grid of relative coordinates, for all phantoms."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

Array = np.ndarray


def grid(size: int) -> tuple[Array, Array]:
    """Coordinates x and y of the pixel centers, from -1 to 1, each of shape (size, size), float32."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    return np.meshgrid(axis, axis)


def smooth_noise(rng: np.random.Generator, cells: int, size: int) -> Array:
    """A smooth random field with about `cells` hills along a side, zero mean, unit spread, shape (size, size)."""
    knots = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    fine = zoom(knots, (size + 2) / (cells + 1), order=2 if cells < size // 2 else 1, mode="reflect", grid_mode=True)
    start = (fine.shape[0] - size) // 2
    return fine[start : start + size, start : start + size] * np.float32(1.45)


def fractal_noise(rng: np.random.Generator, cells: int, size: int, octaves: int = 3) -> Array:
    """A sum of smooth fields, each twice as fine and 0.6 times as strong as the one before, about unit spread."""
    field = np.zeros((size, size), np.float32)
    weight, total = 1.0, 0.0
    for octave in range(octaves):
        hills = min(cells * 2**octave, size)
        field += np.float32(weight) * smooth_noise(rng, hills, size)
        total += weight**2
        weight *= 0.6
    return field / np.float32(np.sqrt(total))


def soft(distance: Array, edge: float) -> Array:
    """A mask that is 1 where the signed distance is negative, with an edge of the given width."""
    return 1.0 / (1.0 + np.exp(np.clip(distance / np.float32(edge), -20, 20)))


def ellipse(x: Array, y: Array, center: tuple[float, float], radii: tuple[float, float], angle: float) -> Array:
    """About the signed distance to an ellipse, negative inside."""
    dx, dy = x - np.float32(center[0]), y - np.float32(center[1])
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = (c * dx + s * dy) / np.float32(radii[0]), (c * dy - s * dx) / np.float32(radii[1])
    return (np.sqrt(u * u + v * v) - 1) * np.float32(min(radii))


def capsule(x: Array, y: Array, start: Array, end: Array, radius: float) -> Array:
    """Signed distance to a thick line between two points, negative inside."""
    ax, ay = (end - start).astype(np.float32)
    dx, dy = x - np.float32(start[0]), y - np.float32(start[1])
    t = np.clip((dx * ax + dy * ay) / (ax * ax + ay * ay + 1e-9), 0, 1)
    return np.hypot(dx - t * ax, dy - t * ay) - np.float32(radius)


def smooth_union(a: Array, b: Array, width: float) -> Array:
    """The union of two signed distances whose seam is rounded over the given width."""
    h = np.clip(0.5 + 0.5 * (b - a) / np.float32(width), 0, 1)
    return b * (1 - h) + a * h - np.float32(width) * h * (1 - h)


def speckles(rng: np.random.Generator, size: int, points: Array, radius: float, strength: Array | float = 1.0) -> Array:
    """Soft dots at points of shape (n, 2) in [-1, 1], of a radius in the same units, about 1 in their middle."""
    field = np.zeros((size, size), np.float32)
    pixels = ((points + 1) / 2 * size).astype(int)
    inside = ((pixels >= 0) & (pixels < size)).all(axis=1)
    amount = np.broadcast_to(strength, len(points))[inside]
    np.add.at(field, (pixels[inside, 1], pixels[inside, 0]), amount)
    sigma = max(radius * size / 2 * 0.6, 0.45)
    return gaussian_filter(field, sigma, mode="constant", truncate=3.0) * np.float32(2 * np.pi * sigma**2)
