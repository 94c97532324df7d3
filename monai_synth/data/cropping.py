"""The middle of every image, for cells that fill a small part of theirs."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..utils.io import write_json
from .images import is_nifti_name, list_images, read_image
from .scanning import scan
from .synthetic_image import is_marked_synthetic


def crop_images(
    source: str | Path, output_dir: str | Path, share: float, groups: str | None = None, labelled: bool = True
) -> int:
    """Writes the middle square of every image of a data set as PNG, in the same class folders; gives their number.

    A base model and a classifier see an image at 128 to 512 pixels. A cell that fills a third of its image is then
    drawn and seen at a third of that, too coarse for lobes and granules.

    Args:
        source: a data set as `scan` takes it; with `labelled` false a folder of images, searched deeply.
        output_dir: is made when all images are written, and not before.
        share: side of the square as a share of the shorter side, above 0 and up to 1.
        groups: see `scan`. Groups that are known, or found as near-duplicates, go into `groups.csv`.
        labelled: false for images of unknown class, such as those for inference.

    Raises:
        FileExistsError: when the output folder exists.
        ValueError: for a share out of its range, a data set that cannot be used, a class that cannot be the name of a
            folder, or an image marked as synthetic.
    """
    source, output_dir = Path(source).resolve(), Path(output_dir)
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}. It is the part of the shorter side that stays, above 0 and up to 1.")
    if output_dir.exists():
        raise FileExistsError(f"{output_dir} exists. Name another folder, or remove that one.")
    part = output_dir.with_name(f".{output_dir.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    rows: list[tuple[str, str]] = []
    for path, place, group in tqdm(list(_images(source, groups, labelled)), desc="cropping", unit="image"):
        target = part / place
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = middle(read_image(path), share).transpose(1, 2, 0)
        if not labelled and not is_nifti_name(path) and is_marked_synthetic(path):  # `scan` refuses them elsewhere
            raise ValueError(
                f"{path} says in its metadata that it is synthetic, which its middle would not say. Take it out of "
                f"{source}: real images alone are cropped."
            )
        Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(target, compress_level=1)
        rows.append((place, group))
    if labelled and len({group for _, group in rows}) < len(rows):
        with open(part / "groups.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("image", "group"), *rows])
    write_json(part / "crop.json", {"source": str(source), "share": share})
    os.replace(part, output_dir)
    return len(rows)


def middle(image: np.ndarray, share: float) -> np.ndarray:
    """The middle square, shape (3, side, side), of an image of shape (3, H, W); side is a share of the shorter one."""
    height, width = image.shape[1:]
    side = max(1, round(min(height, width) * share))
    top, left = (height - side) // 2, (width - side) // 2
    return image[:, top : top + side, left : left + side]


def _images(source: Path, groups: str | None, labelled: bool) -> Iterator[tuple[str, str, str]]:
    """Path, place in the new folder and group of every image."""
    taken: set[str] = set()

    def free(place: Path) -> str:
        """A place that no image has yet: two files may differ in their ending alone."""
        name, number = place.with_suffix(".png").as_posix(), 1
        while name in taken:
            number += 1
            name = place.with_name(f"{place.stem}_{number}.png").as_posix()
        taken.add(name)
        return name

    if not labelled:
        for record in list_images(source):
            path = Path(record["image"])
            yield str(path), free(path.relative_to(source if source.is_dir() else source.parent)), ""
        return
    records, _ = scan(source, groups=groups)  # which refuses classes that cannot be folders
    for record in records:
        yield record["image"], free(Path(record["class_name"], Path(record["image"]).name)), str(record["group"])
