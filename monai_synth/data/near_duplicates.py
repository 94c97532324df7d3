"""Images that were cut, turned, flipped, zoomed or compressed from one original, found without any network."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import map_coordinates
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from ..utils.cores import usable_cores
from .images import read_image, to_rgb

Array = np.ndarray
SIDE = 96  # pixels of the small image that is looked at
RINGS, ANGLES, HARMONICS = 24, 64, 16
ZOOMS = (1.0, 1.09, 1.19, 1.3, 1.42)  # a square turned by 25 degrees and cut to its inside is zoomed by 1.33
NEIGHBORS = 10  # candidates that are looked at closely for each image
FEWEST = 20  # images; what is usual in a set cannot be told from fewer
SPREADS = 12.0  # a pair must stand out by so many robust standard deviations of random pairs
LOWEST, HIGHEST = 0.45, 0.85  # bounds of the threshold
BORDER = 0.08  # pairs this near to the threshold are shown


@dataclass(frozen=True)
class NearDuplicates:
    """What was found.

    Args:
        groups: number of the group of each image, shape (N,).
        threshold: similarity from which on two images are one original, -1 to 1.
        pairs: pairs of images that were joined, (first, second, similarity), the most similar first.
        borderline: pairs whose similarity is within 0.08 of the threshold, on either side.
    """

    groups: Array
    threshold: float
    pairs: list[tuple[int, int, float]]
    borderline: list[tuple[int, int, float]]


def find_near_duplicates(paths: Sequence[str | Path], threshold: float | None = None) -> NearDuplicates:
    """Groups the images that come from one original.

    Each image is sampled on rings around its center, in five zooms, and every ring becomes a Fourier series over the
    angle. Turning an image shifts the phases and flipping it conjugates them, so magnitudes find candidates, and the
    circular correlation of the series over all angles, flips and zooms decides. What the images of a set have in common
    is divided out first (a cell is round wherever it is from), and the threshold is the median of random pairs plus 12
    of their robust standard deviations, between 0.45 and 0.85. Memory is about 25 kB an image.

    Args:
        paths: of the images.
        threshold: similarity from which on two images are one original; None finds it from the set.

    Raises:
        ValueError: when an image cannot be read; names it.

    Reference:
        Casasent and Psaltis, "Position, rotation, and scale invariant optical correlation", Applied Optics, 1976: the
        polar Fourier transform; here the correlation is over the angle, and the zooms are tried one by one.
    """
    if len(paths) < FEWEST:
        return NearDuplicates(np.arange(len(paths)), HIGHEST, [], [])
    with ThreadPoolExecutor(usable_cores()) as pool:
        looks = tqdm(pool.map(ring_series, paths), total=len(paths), desc="comparing images", disable=len(paths) < 2000)
        series = np.stack(list(looks))
    candidates = nearest_candidates(series)
    series = whitened(series)
    limit = usual_limit(series) if threshold is None else threshold
    found: dict[tuple[int, int], float] = {}
    for first, others in enumerate(candidates):
        for second, value in zip(others, similarities(series, first, others)):
            if value >= limit - BORDER:
                found[min(first, int(second)), max(first, int(second))] = float(value)
    pairs = sorted(((i, j, value) for (i, j), value in found.items()), key=lambda pair: -pair[2])
    joined = [pair for pair in pairs if pair[2] >= limit]
    links = coo_matrix((np.ones(len(joined)), ([p[0] for p in joined], [p[1] for p in joined])), (len(paths),) * 2)
    groups = connected_components(links, directed=False)[1]
    return NearDuplicates(groups, float(limit), joined, [pair for pair in pairs if pair[2] < limit + BORDER])


def ring_series(path: str | Path) -> Array:
    """The Fourier series of an image's rings, shape (zooms, 3, rings, harmonics, 2), real and imaginary parts."""
    values = small_image(path)
    polar = np.stack([map_coordinates(values[channel], _ring_points(), order=1) for channel in range(3)], axis=1)
    series = np.fft.rfft(polar, axis=3)[..., :HARMONICS] / ANGLES
    series *= np.sqrt(np.linspace(0.06, 1, RINGS))[:, None]  # outer rings stand for more of the image
    return np.stack([series.real, series.imag], axis=-1).astype(np.float16)


def small_image(path: str | Path) -> Array:
    """The middle square of an image, shape (3, 96, 96), in [0, 1]; JPEG files are read at a fraction of their size."""
    if str(path).endswith((".nii", ".nii.gz", ".tif", ".tiff")):
        whole = Image.fromarray((read_image(path).transpose(1, 2, 0) * 255).astype(np.uint8))
    else:
        try:
            with Image.open(path) as image:
                image.draft("RGB", (SIDE, SIDE))
                image.load()  # while the file is open: `to_rgb` hands an RGB image back as it is
                whole = to_rgb(image)
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{path} is not an image that can be read: {error}.") from error
    small = ImageOps.fit(whole, (SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 255


def _ring_points() -> Array:
    """Rows and columns of the sampled points, shape (2, zooms, rings, angles)."""
    angles = 2 * np.pi * np.arange(ANGLES) / ANGLES
    radii = np.linspace(0.06, 1, RINGS)[None, :, None] * (SIDE / 2 - 1) / np.array(ZOOMS)[:, None, None]
    return np.stack([radii * np.sin(angles), radii * np.cos(angles)]) + (SIDE - 1) / 2


def nearest_candidates(series: Array, chunk: int = 256) -> Array:
    """For each image those whose magnitudes are most alike in any zoom, shape (N, 10), in bounded memory."""
    count = len(series)
    magnitudes = np.empty((count, len(ZOOMS), 3 * RINGS * 12), dtype=np.float16)
    for start in range(0, count, chunk):
        part = series[start : start + chunk, ..., :12, :].astype(np.float32)
        magnitudes[start : start + chunk] = np.hypot(part[..., 0], part[..., 1]).reshape(len(part), len(ZOOMS), -1)
    plain = magnitudes[:, 0].astype(np.float32)
    center, spread = plain.mean(0), plain.std(0) + 1e-3

    def standard(values: Array) -> Array:
        values = (values.astype(np.float32) - center) / spread
        return values / np.linalg.norm(values, axis=-1, keepdims=True)

    plain, wanted = standard(plain), min(NEIGHBORS, count - 1)
    best = np.empty((count, wanted), dtype=int)
    for start in range(0, count, chunk):
        part = standard(magnitudes[start : start + chunk])
        alike = np.max([part[:, zoom] @ plain.T for zoom in range(len(ZOOMS))], axis=0)
        alike[np.arange(len(part)), start + np.arange(len(part))] = -np.inf
        best[start : start + chunk] = np.argpartition(-alike, wanted - 1, axis=1)[:, :wanted]
    return best


def whitened(series: Array) -> Array:
    """The series without their ring means, each coefficient over its size in the set, length 1; as they came in."""
    power = np.mean(series[:, 0].astype(np.float32) ** 2, axis=0).sum(-1)  # of each coefficient
    size = np.sqrt(power)
    size += 0.1 * np.sqrt(power[..., 1:].mean())
    result = series
    for place, one in enumerate(series):
        flat = one.astype(np.float32) / size[..., None]
        flat[..., 0, :] = 0
        energy = 2 * np.square(flat).sum(axis=(1, 2, 3, 4), keepdims=True)
        result[place] = flat / np.sqrt(energy + 1e-12)
    return result


def similarities(series: Array, first: int, others: Array) -> Array:
    """The correlation of one image with others at the best turn, flip and zoom, shape (len(others),), -1 to 1."""
    one, many = _as_complex(series[first]), _as_complex(series[others])
    best = np.full(len(others), -1.0)
    for zoom in range(len(ZOOMS)):
        for a, b in ((one[zoom], many[:, 0]), (one[0], many[:, zoom])):
            for other in (np.conj(b), b):  # b itself is the flipped image's conjugate
                curve = np.fft.irfft((a * other).sum(axis=(1, 2)), ANGLES, axis=1) * ANGLES
                best = np.maximum(best, curve.max(axis=1))
    return best


def _as_complex(series: Array) -> Array:
    return series[..., 0].astype(np.float32) + 1j * series[..., 1].astype(np.float32)


def usual_limit(series: Array, draws: int = 120) -> float:
    """The threshold that a set's random pairs set."""
    rng, count = np.random.default_rng(0), len(series)
    values = [similarities(series, i, rng.permutation(count)[:20]) for i in rng.permutation(count)[:draws]]
    seen = np.concatenate(values)
    seen = seen[seen < 0.99]  # an image with itself
    middle = np.median(seen)
    spread = 1.4826 * np.median(np.abs(seen - middle))
    return float(np.clip(middle + SPREADS * spread, LOWEST, HIGHEST))
