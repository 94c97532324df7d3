"""Times what grows with the data set: prints numbers of docs/leaks.md, docs/assessment.md and docs/performance.md.

python scripts/time_large_sets.py --parts scan search quality
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from monai_synth.data import check
from monai_synth.data import near_duplicates as search
from monai_synth.data.images import look_at
from monai_synth.data.phantom import draw_phantom
from monai_synth.metrics.quality import ImageSet, quality

ORIGINALS = 40  # phantoms of which tiles are made by shifting


def write_tiles(folder: Path, count: int, size: int) -> list[Path]:
    """JPEG tiles of two classes, every one another."""
    rng = np.random.default_rng(0)
    drawn = [draw_phantom("colon_aca", seed, size=224).transpose(1, 2, 0) for seed in range(ORIGINALS)]
    originals = [np.asarray(Image.fromarray((x * 255).astype(np.uint8)).resize((size, size))) for x in drawn]
    paths = []
    for index in range(count):
        path = folder / "ab"[index % 2] / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        tile = np.roll(originals[rng.integers(ORIGINALS)], rng.integers(0, size, 2), (0, 1)).copy()
        tile[:2, :8] = rng.integers(0, 255, (2, 8, 3))
        Image.fromarray(tile).save(path, quality=85)
        paths.append(path)
    return paths


def time_scan(count: int) -> None:
    """Checking a folder, near-duplicates apart; and the cost of one large tile."""
    with tempfile.TemporaryDirectory() as name:
        write_tiles(Path(name), count, 224)
        start = time.perf_counter()
        check(name, find_duplicates=False)
        print(f"checking {count} tiles of 224 pixels: {time.perf_counter() - start:.1f} s, two threads")
    with tempfile.TemporaryDirectory() as name:
        large = write_tiles(Path(name), 80, 768)
        for what, function in (("sampling", search.ring_series), ("hashing", look_at)):
            start = time.perf_counter()
            for path in large:
                function(path)
            print(
                f"{what} a tile of 768 pixels: {1000 * (time.perf_counter() - start) / len(large):.1f} ms, one thread"
            )


def time_search(count: int) -> None:
    """The search for near-duplicates among the series of `count` images, 20 of each original, without reading any."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        shape = search.ring_series(write_tiles(Path(name), 1, 224)[0]).shape
    originals = 0.1 * rng.standard_normal((-(-count // 20), *shape), dtype=np.float32)

    def series(path: str | Path) -> np.ndarray:
        index = int(str(path))
        noise = np.random.default_rng(index).standard_normal(shape, dtype=np.float32)
        return (originals[index // 20] + 0.03 * noise).astype(np.float16)

    search.ring_series = series
    start = time.perf_counter()
    found = search.find_near_duplicates([str(index) for index in range(count)])
    seconds, groups = time.perf_counter() - start, len(set(found.groups))
    print(f"searching {count} images: {seconds:.0f} s, {groups} groups of {len(originals)} originals")


def time_quality(count: int) -> None:
    """The quality of synthetic images whose features are at hand."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 4
    groups = np.array([f"g{index // 5}" for index in range(count)])
    real, drawn = (ImageSet(rng.standard_normal((count, 368)) + shift, labels, groups) for shift in (0.0, 0.1))
    start = time.perf_counter()
    quality(real, drawn, ["a", "b", "c", "d"])
    print(f"quality of 2 x {count} images: {time.perf_counter() - start:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", choices=("scan", "search", "quality"), default=["scan", "search", "quality"]
    )
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--searched", type=int, default=25_000)
    parser.add_argument("--judged", type=int, default=5_000, help="images on each side")
    options = parser.parse_args()
    parts = {
        "scan": lambda: time_scan(options.tiles),
        "search": lambda: time_search(options.searched),
        "quality": lambda: time_quality(options.judged),
    }
    for part in options.parts:
        parts[part]()
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MB")


if __name__ == "__main__":
    main()
