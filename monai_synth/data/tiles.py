"""Class tiles from annotated whole-slide images."""

from __future__ import annotations

import csv
import logging
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import WSIReader
from PIL import Image, ImageDraw
from tqdm import tqdm

from ..transforms.macenko import tissue_share
from ..utils.io import write_json
from .annotations import LABELS, SUFFIXES, Polygon, read_labels, regions_of

logger = logging.getLogger(__name__)

BACKENDS = {"cucim": "cucim", "openslide": "openslide", "tifffile": "tifffile"}  # module of each, the fastest first
MASK_PIXELS = 16  # pixels of a class mask along a tile's side
MPP_TOLERANCE = 0.2  # relative


@dataclass(frozen=True)
class TilePlan:
    """How tiles are cut.

    Args:
        size: side of a tile in pixels of its level.
        level: of the slide's pyramid, 0 is the finest.
        pixel_size_um: micrometers per pixel; the level that has it, within a fifth, is taken in place of `level`.
        step: pixels between the corners of neighboring tiles; None is `size`, without overlap.
        min_tissue: smallest share of a tile that must be tissue.
        min_inside: smallest share of a tile that must lie in a region of its class.
        max_per_class: most tiles of a class from one slide, drawn at random; None takes all.
        seed: of that draw.
    """

    size: int = 224
    level: int = 0
    pixel_size_um: float | None = None
    step: int | None = None
    min_tissue: float = 0.5
    min_inside: float = 0.75
    max_per_class: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("size", 32), ("level", 0), ("step", 1), ("max_per_class", 1)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise ValueError(f"{name} is {value}; it must be {low} or more.")
        for name in ("min_tissue", "min_inside"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")


def cut_tiles(source: str | Path, output_dir: str | Path, plan: TilePlan, backend: str | None = None) -> dict[str, int]:
    """Cuts the slides of a folder into a folder of class folders that every bundle reads.

    A slide's classes come from `NAME.geojson` beside it, as QuPath exports annotations (polygons in pixels of the
    finest level, without their holes, class in properties.classification.name), or from `slides.csv` (slide,
    class_name), which gives a whole slide one class. `groups.csv` names the slide of each tile, so that no split tears
    one apart.

    Args:
        source: folder of slides.
        output_dir: is made when all tiles are cut, and not before.
        plan: how tiles are cut.
        backend: of MONAI's `WSIReader`; None takes the first of cucim, openslide and tifffile that is installed.

    Returns:
        Number of tiles of each class.

    Raises:
        FileExistsError: when the output folder exists.
        FileNotFoundError: when there are no slides, or one has no annotation.
        ModuleNotFoundError: when the backend is not installed.
        ValueError: for a slide without the level or the pixel size, or annotations that cannot be read.
    """
    source, output_dir = Path(source), Path(output_dir)
    if output_dir.exists():
        raise FileExistsError(f"{output_dir} exists. Name another folder, or remove that one.")
    slides = find_slides(source)
    labels = read_labels(source / LABELS)
    regions = {slide: regions_of(slide, labels) for slide in slides}
    reader = build_reader(backend)
    part = output_dir.with_name(f".{output_dir.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    rows: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    for slide in tqdm(slides, desc="cutting slides", unit="slide"):
        for class_name, name, tile in tiles_of(slide, regions[slide], reader, plan):
            path = part / class_name / f"{slide.stem}_{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(tile).save(path, compress_level=1)
            rows.append((f"{class_name}/{path.name}", slide.stem))
            counts[class_name] += 1
    if not rows:
        raise ValueError(
            f"No tile of {len(slides)} slides has {plan.min_tissue:.0%} tissue and lies {plan.min_inside:.0%} inside a "
            "region. Lower min_tissue or min_inside, or cut smaller tiles."
        )
    with open(part / "groups.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "group"), *rows])
    write_json(part / "tiles.json", {"source": str(source), "backend": reader.backend, "plan": asdict(plan)})
    os.replace(part, output_dir)
    return dict(sorted(counts.items()))


def find_slides(source: Path) -> list[Path]:
    """The slides of a folder, sorted, without hidden files such as those that macOS puts beside others.

    Raises:
        FileNotFoundError: when there are none.
        ValueError: when two have the same name but for their ending.
    """
    visible = (path for path in source.glob("*") if not path.name.startswith("."))
    slides = sorted(path for path in visible if path.suffix.lower() in SUFFIXES)
    if not slides:
        raise FileNotFoundError(f"There are no slides in {source}. Slides end in {', '.join(SUFFIXES)}.")
    twice = [name for name, count in Counter(path.stem for path in slides).items() if count > 1]
    if twice:
        raise ValueError(f"{source} has several slides called {twice[0]}; their tiles could not be told apart.")
    return slides


def build_reader(backend: str | None) -> Any:
    """MONAI's reader with a backend that is installed.

    Raises:
        ValueError: for an unknown backend.
        ModuleNotFoundError: when it, or every one, is missing.
    """
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f"There is no backend {backend!r}. Choose one of {', '.join(BACKENDS)}.")
    wanted = [backend] if backend else list(BACKENDS)
    for name in wanted:
        if find_spec(BACKENDS[name]) is not None:
            return WSIReader(backend=name)
    raise ModuleNotFoundError(
        f"Slides need {' or '.join(wanted)}, which is not installed: pip install -e \".[slides]\" brings tifffile and "
        "OpenSlide."
    )


def level_of(slide: Path, reader: Any, wsi: Any, plan: TilePlan) -> int:
    """The level that tiles are cut from.

    Raises:
        ValueError: when the slide does not have it; says what it has.
    """
    count = reader.get_level_count(wsi)
    if plan.pixel_size_um is None:
        if plan.level >= count:
            raise ValueError(f"{slide.name} has the levels 0 to {count - 1}, but level={plan.level} is asked for.")
        return plan.level
    wanted = plan.pixel_size_um
    sizes = [float(np.mean(reader.get_mpp(wsi, level))) for level in range(count)]
    best = min(range(count), key=lambda level: abs(math.log(sizes[level] / wanted)))
    if abs(sizes[best] / wanted - 1) > MPP_TOLERANCE:
        raise ValueError(
            f"{slide.name} has no level of {wanted} micrometers per pixel; its levels have "
            f"{', '.join(f'{size:.3g}' for size in sizes)}."
        )
    return best


def tiles_of(
    slide: Path, regions: Mapping[str, Sequence[Polygon]] | str, reader: Any, plan: TilePlan
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Class, name and pixels (size, size, 3) of each tile of a slide; the name has its corner on the finest level."""
    wsi = reader.read(str(slide))
    level = level_of(slide, reader, wsi, plan)
    ratio = reader.get_downsample_ratio(wsi, level)
    height, width = reader.get_size(wsi, level)
    read = _region_reader(reader, wsi, level, slide)
    if reader.backend == "openslide" and not isinstance(regions, str):
        regions = _on_whole_slide(regions, wsi.properties)
    for class_name, corners in places_of(regions, height, width, ratio, plan).items():
        taken = 0
        for top, left in corners:
            tile = read(top, left, plan.size)
            if tissue_share(torch.from_numpy(tile.transpose(2, 0, 1).copy()) / 255) < plan.min_tissue:
                continue
            yield class_name, f"{round(left * ratio)}_{round(top * ratio)}", tile
            taken += 1
            if taken == plan.max_per_class:
                break


def _on_whole_slide(
    regions: Mapping[str, Sequence[Polygon]], properties: Mapping[str, str]
) -> dict[str, list[Polygon]]:
    """Regions in OpenSlide's pixels: QuPath counts from the corner of the scanned area, where a slide notes one."""
    left, top = (float(properties.get(f"openslide.bounds-{axis}", 0)) for axis in "xy")
    return {
        name: [[[(x + left, y + top) for x, y in ring] for ring in polygon] for polygon in polygons]
        for name, polygons in regions.items()
    }


def places_of(
    regions: Mapping[str, Sequence[Polygon]] | str, height: int, width: int, ratio: float, plan: TilePlan
) -> dict[str, list[tuple[int, int]]]:
    """Corners (top, left) of the tiles of each class in pixels of the level, in random order when some are left out.

    Args:
        regions: of each class, in pixels of the finest level, or the class of all.
        height: of the level.
        width: of the level.
        ratio: pixels of the finest level per pixel of this one.
        plan: how tiles are cut.
    """
    step = plan.step or plan.size
    grid = [
        (top, left) for top in range(0, height - plan.size + 1, step) for left in range(0, width - plan.size + 1, step)
    ]
    if isinstance(regions, str):
        places = {regions: grid}
    else:
        cell = plan.size / MASK_PIXELS  # pixels of the level per pixel of a mask
        places = {}
        for class_name, polygons in regions.items():
            mask = Image.new("1", (math.ceil(width / cell), math.ceil(height / cell)))
            for polygon in polygons:
                _draw(mask, [[(x / ratio / cell, y / ratio / cell) for x, y in ring] for ring in polygon])
            inside = np.asarray(mask)
            places[class_name] = [
                (top, left)
                for top, left in grid
                if inside[_span(top, cell), _span(left, cell)].mean() >= plan.min_inside
            ]
    if plan.max_per_class is not None:
        rng = np.random.default_rng(plan.seed)
        places = {name: [corners[i] for i in rng.permutation(len(corners))] for name, corners in places.items()}
    return places


def _draw(mask: Image.Image, polygon: Polygon) -> None:
    """Adds a polygon without its holes to a mask; what lies in a hole and belongs to another polygon stays."""
    left, top = (math.floor(min(values)) for values in zip(*polygon[0]))
    right, bottom = (math.ceil(max(values)) for values in zip(*polygon[0]))
    own = Image.new("1", (right - left + 1, bottom - top + 1))
    for number, ring in enumerate(polygon):
        ImageDraw.Draw(own).polygon([(x - left, y - top) for x, y in ring], fill=int(number == 0))
    mask.paste(1, (left, top), own)


def _span(start: int, cell: float) -> slice:
    first = round(start / cell)
    return slice(first, first + MASK_PIXELS)


def _region_reader(reader: Any, wsi: Any, level: int, slide: Path) -> Any:
    """A function that reads a square of a level, (size, size, 3) of 8 bits."""
    ratio = reader.get_downsample_ratio(wsi, level)
    if reader.backend != "tifffile":
        mode = "RGBA" if reader.backend == "openslide" else "RGB"  # OpenSlide's alpha says what was not scanned
        return lambda top, left, size: _pixels(
            reader.get_data(wsi, (round(top * ratio), round(left * ratio)), (size, size), level, mode=mode)[0]
        )
    height, width = reader.get_size(wsi, level)  # tifffile reads a whole level for every square, so once for all
    if height * width > 2_000_000_000:
        raise ValueError(
            f"{slide.name} has {width} x {height} pixels at level {level}, and tifffile reads it whole. Install "
            "OpenSlide (pip install openslide-python openslide-bin), or take a coarser level."
        )
    whole = _pixels(reader.get_data(wsi, level=level)[0])
    return lambda top, left, size: whole[top : top + size, left : left + size]


def _pixels(data: Any) -> np.ndarray:
    """Pixels of shape (H, W, 3) and 8 bits from (3, H, W), or from (4, H, W) with its transparent parts on white."""
    pixels = np.asarray(data, dtype=np.uint8).transpose(1, 2, 0)
    if pixels.shape[2] == 3:
        return pixels
    alpha = pixels[..., 3:] / 255
    return np.round(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
