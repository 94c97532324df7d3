"""Images that were cut, turned, flipped, zoomed or compressed from one original, found without any network."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
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
from .images import faults_named, is_nifti_name, read_image, to_rgb

Array = np.ndarray
SIDE = 96  # pixels of the small image that is looked at
RINGS, ANGLES, HARMONICS = 24, 64, 16
ZOOMS = (1.0, 1.09, 1.19, 1.3, 1.42)  # a square turned by 25 degrees and cut to its inside is zoomed by 1.33
NEIGHBORS = 10  # candidates that are looked at closely for each image
FEWEST = 20  # images; what is usual in a set cannot be told from fewer
SPREADS = 12.0  # a pair must stand out by so many robust standard deviations of random pairs
LOWEST, HIGHEST = 0.45, 0.85  # bounds of the threshold
BORDER = 0.08  # pairs this near to the threshold are shown
CHUNK = 128  # images that are compared with all others at once
SHAPE = (len(ZOOMS), 3, RINGS, HARMONICS, 2)  # of an image's series


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
    of their robust standard deviations, between 0.45 and 0.85. Memory is about 4 kB an image, and
    until all is compared 23 kB more lie in a file in the folder for temporary files (TMPDIR).

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
        series = SeriesFile(looks)
    candidates = nearest_candidates(series)
    whiten(series)
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


class SeriesFile:
    """The series of many images, in a file without a name that is gone when nobody holds it any more.

    Args:
        series: of one image after another, each of the shape that `ring_series` gives.

    Raises:
        OSError: when there is no room for it; names the folder.
    """

    def __init__(self, series: Iterable[Array]) -> None:
        self.file = tempfile.TemporaryFile()
        self.count = 0
        self.size = 2 * int(np.prod(SHAPE))  # bytes of an image
        for one in series:
            self._put(one)
            self.count += 1

    def __len__(self) -> int:
        return self.count

    def read(self, start: int, stop: int) -> Array:
        """Those of the images from one to before another, shape (N, zooms, 3, rings, harmonics, 2), float32."""
        stop = min(stop, self.count)
        self.file.seek(start * self.size)
        values = np.frombuffer(self.file.read((stop - start) * self.size), dtype=np.float16)
        return values.reshape(stop - start, *SHAPE).astype(np.float32)

    def of(self, images: Iterable[int]) -> Array:
        """Those of some images as complex numbers, shape (N, zooms, 3, rings, harmonics)."""
        values = np.concatenate([self.read(int(image), int(image) + 1) for image in images])
        return values[..., 0] + 1j * values[..., 1]

    def write(self, start: int, series: Array) -> None:
        """Puts others in the place of those from an image on."""
        self.file.seek(start * self.size)
        self._put(series)

    def _put(self, series: Array) -> None:
        try:
            self.file.write(series.astype(np.float16).tobytes())
            self.file.flush()  # a full disk is told here, and not at the next reading
        except OSError as error:
            raise OSError(
                f"Comparing images needs {self.size} bytes for each in {tempfile.gettempdir()}: {error}. Make room, "
                "let the environment variable TMPDIR name another folder, or set find_duplicates to false."
            ) from error


def ring_series(path: str | Path) -> Array:
    """The Fourier series of an image's rings, shape (zooms, 3, rings, harmonics, 2), real and imaginary parts."""
    values = small_image(path)
    polar = np.stack([map_coordinates(values[channel], _ring_points(), order=1) for channel in range(3)], axis=1)
    series = np.fft.rfft(polar, axis=3)[..., :HARMONICS] / ANGLES
    series *= np.sqrt(np.linspace(0.06, 1, RINGS))[:, None]  # outer rings stand for more of the image
    return np.stack([series.real, series.imag], axis=-1).astype(np.float16)


def small_image(path: str | Path) -> Array:
    """The middle square of an image, shape (3, 96, 96), in [0, 1]; JPEG files are read at a fraction of their size."""
    if is_nifti_name(path):
        whole = Image.fromarray((read_image(path).transpose(1, 2, 0) * 255).astype(np.uint8))
    else:
        with faults_named(path), Image.open(path) as image:
            image.draft("RGB", (SIDE, SIDE))
            image.load()  # while the file is open: `to_rgb` hands an RGB image back as it is
            whole = to_rgb(image, path)
    small = ImageOps.fit(whole, (SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 255


def _ring_points() -> Array:
    """Rows and columns of the sampled points, shape (2, zooms, rings, angles)."""
    angles = 2 * np.pi * np.arange(ANGLES) / ANGLES
    radii = np.linspace(0.06, 1, RINGS)[None, :, None] * (SIDE / 2 - 1) / np.array(ZOOMS)[:, None, None]
    return np.stack([radii * np.sin(angles), radii * np.cos(angles)]) + (SIDE - 1) / 2


def magnitudes(series: SeriesFile, start: int) -> Array:
    """What no turn changes of a chunk of images from one on, shape (N, zooms, D), float32."""
    part = series.read(start, start + CHUNK)[..., :12, :]
    return np.hypot(part[..., 0], part[..., 1]).reshape(len(part), len(ZOOMS), -1)


def standardize(values: Array) -> tuple[Array, Array]:
    """The center and spread of columns, by which rows are standardized in place; no other array gets as large.

    Args:
        values: of the images, shape (N, D), float32; each row gets length 1.
    """
    center, squares = values.mean(0), np.zeros(values.shape[1], dtype=np.float32)
    chunks = [values[start : start + CHUNK] for start in range(0, len(values), CHUNK)]  # views
    for chunk in chunks:
        squares += np.square(chunk - center).sum(0)
    spread = np.sqrt(squares / len(values)) + np.float32(1e-3)
    for chunk in chunks:
        standardized(chunk, center, spread)
    return center, spread


def standardized(values: Array, center: Array, spread: Array) -> Array:
    """The same array, changed in place: centered, divided by the spread, and along its last axis of length 1."""
    values -= center
    values /= spread
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return values


def nearest_candidates(series: SeriesFile) -> Array:
    """For each image those whose magnitudes are most alike in any zoom, shape (N, 10), in bounded memory."""
    count, starts = len(series), range(0, len(series), CHUNK)
    plain = np.empty((count, 3 * RINGS * 12), dtype=np.float32)
    for start in starts:
        plain[start : start + CHUNK] = magnitudes(series, start)[:, 0]
    center, spread = standardize(plain)
    wanted = min(NEIGHBORS, count - 1)
    best = np.empty((count, wanted), dtype=int)
    for start in starts:
        part = standardized(magnitudes(series, start), center, spread)
        alike = part[:, 0] @ plain.T
        for zoom in range(1, len(ZOOMS)):
            np.maximum(alike, part[:, zoom] @ plain.T, out=alike)
        alike[np.arange(len(part)), start + np.arange(len(part))] = -np.inf
        best[start : start + CHUNK] = np.argpartition(-alike, wanted - 1, axis=1)[:, :wanted]
    return best


def whiten(series: SeriesFile) -> None:
    """Takes the ring means off, divides each coefficient by its size in the set, and makes all series of length 1."""
    starts = range(0, len(series), CHUNK)
    powers = [np.square(series.read(start, start + CHUNK)[:, 0]).sum(axis=(0, -1)) for start in starts]
    power = np.sum(powers, axis=0) / len(series)
    size = np.sqrt(power)  # of each coefficient
    size += 0.1 * np.sqrt(power[..., 1:].mean())
    for start in starts:
        flat = series.read(start, start + CHUNK) / size[..., None]
        flat[..., 0, :] = 0
        energy = 2 * np.square(flat).sum(axis=(2, 3, 4, 5), keepdims=True)
        series.write(start, flat / np.sqrt(energy + 1e-12))


def similarities(series: SeriesFile, first: int, others: Array) -> Array:
    """The correlation of one image with others at the best turn, flip and zoom, shape (len(others),), -1 to 1."""
    one, many = series.of([first])[0], series.of(others)
    best = np.full(len(others), -1.0)
    for zoom in range(len(ZOOMS)):
        for a, b in ((one[zoom], many[:, 0]), (one[0], many[:, zoom])):
            for other in (np.conj(b), b):  # b itself is the flipped image's conjugate
                curve = np.fft.irfft((a * other).sum(axis=(1, 2)), ANGLES, axis=1) * ANGLES
                best = np.maximum(best, curve.max(axis=1))
    return best


def usual_limit(series: SeriesFile, draws: int = 120) -> float:
    """The threshold that a set's random pairs set."""
    rng, count = np.random.default_rng(0), len(series)
    values = [similarities(series, i, rng.permutation(count)[:20]) for i in rng.permutation(count)[:draws]]
    seen = np.concatenate(values)
    seen = seen[seen < 0.99]  # an image with itself
    middle = np.median(seen)
    spread = 1.4826 * np.median(np.abs(seen - middle))
    return float(np.clip(middle + SPREADS * spread, LOWEST, HIGHEST))
