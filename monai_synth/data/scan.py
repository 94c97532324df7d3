"""A folder, a CSV or a datalist as records, and everything that is wrong with it, at once."""

from __future__ import annotations

import csv
import hashlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..utils.io import read_json, sha256_of
from .copies import join_near_duplicates, judge_copies
from .findings import SHOWN, Finding
from .images import is_image_name, read_image
from .records import Record, load_datalist

logger = logging.getLogger(__name__)

SMALL_SIDE = 32  # pixels


@dataclass(frozen=True)
class _Image:
    path: Path
    class_name: str
    group: str | None


def scan(
    source: str | Path,
    class_names: Sequence[str] | None = None,
    groups: str | None = None,
    find_duplicates: bool = True,
) -> tuple[list[Record], list[str]]:
    """The records of a data set.

    Args:
        source: a folder with one sub-folder per class, a CSV with the columns image and class_name (or label) and
            possibly group, or a datalist JSON. A `groups.csv` (image, group) in the folder names patients or slides.
        class_names: the classes to use, in the order of their labels; None uses all, sorted.
        groups: regular expression over an image's path below the folder whose first group names the patient or slide.
        find_duplicates: where no groups are known, images that come from one original share a group, see
            `find_near_duplicates`.

    Returns:
        Records {image, label, class_name, group, origin, sha256}, sorted by path, and the class names.

    Raises:
        ValueError: lists what is wrong with the data set.
    """
    records, findings, names = _examine(source, class_names, groups, find_duplicates)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        lines = [f"{finding.path}: {finding.message}" for finding in errors[:SHOWN]]
        more = f"\n  and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
        raise ValueError(f"{source} cannot be used, {len(errors)} problems:\n  " + "\n  ".join(lines) + more)
    for finding in findings:
        logger.warning("%s: %s", finding.path, finding.message)
    return records, names


def check(
    source: str | Path,
    class_names: Sequence[str] | None = None,
    groups: str | None = None,
    shots: int | None = None,
    find_duplicates: bool = True,
) -> list[Finding]:
    """Everything about a data set that its owner should know, errors first; see `scan` for the arguments.

    Args:
        shots: images per class that will be asked for, so that a class with fewer is told.
    """
    records, findings, names = _examine(source, class_names, groups, find_duplicates)
    counts = Counter(record["class_name"] for record in records)
    for name in names:
        if shots is not None and 0 < counts[name] < shots:
            message = f"has {counts[name]} images, fewer than shots={shots}. Add images or ask for fewer shots."
            findings.append(Finding("error", name, message))
    return sorted(findings, key=lambda finding: (finding.level, finding.path))


def _examine(
    source: str | Path, class_names: Sequence[str] | None, groups: str | None, find_duplicates: bool
) -> tuple[list[Record], list[Finding], list[str]]:
    source = Path(source)
    findings: list[Finding] = []
    if not source.exists():
        message = "does not exist. Name a folder with one sub-folder of images per class, a CSV or a datalist JSON."
        return [], [Finding("error", str(source), message)], []
    if source.is_dir():
        images = _images_of_folder(source, class_names, groups, findings)
    elif source.suffix == ".csv":
        images = _images_of_csv(source, findings)
    else:
        records = load_datalist(source)
        images = [_Image(Path(row["image"]), row["class_name"], row.get("group")) for row in records]
    found = sorted({image.class_name for image in images})
    names = list(class_names) if class_names else found
    images = [image for image in images if image.class_name in names]
    for name in names:
        if name not in found:
            folders = sorted(path.name for path in source.iterdir() if path.is_dir()) if source.is_dir() else found
            message = f"has no image. The classes there are {folders}."
            findings.append(Finding("error", name, message))
    if len(names) == 1 and names[0] in found:
        findings.append(Finding("error", names[0], "is the only class. A classifier needs two classes or more."))
    if not names and not findings:
        message = "holds no images. Expected one sub-folder per class with PNG, JPEG, TIFF, BMP, WebP or NIfTI files."
        findings.append(Finding("error", str(source), message))
    records = _records(source, images, names, findings)
    if images and not any(image.group for image in images):
        message = (
            "no patients or slides are known, so each image counts as its own group. If several images come from one "
            "patient, name them in a groups.csv (image,group) or by a pattern (groups=...)."
        )
        findings.append(Finding("warning", str(source), message))
        if find_duplicates:
            base = source if source.is_dir() else source.parent
            findings += join_near_duplicates(records, base)
    return records, findings, names


def _images_of_folder(
    source: Path, class_names: Sequence[str] | None, groups: str | None, findings: list[Finding]
) -> list[_Image]:
    known = _read_groups(source / "groups.csv", findings)
    pattern = re.compile(groups) if groups else None
    images: list[_Image] = []
    used = set()
    for folder in sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if class_names and folder.name not in class_names:
            continue
        before = len(images)
        for path in _files(folder, source, findings):
            relative = path.relative_to(source).as_posix()
            group = known.get(relative)
            used.add(relative)
            if pattern:
                match = pattern.search(relative)
                if match is None:
                    findings.append(Finding("error", relative, f"does not match the group pattern {groups!r}."))
                group = match.group(1) if match else None
            elif known and group is None:
                findings.append(
                    Finding("error", relative, "is missing in groups.csv; name its patient or slide there.")
                )
            images.append(_Image(path, folder.name, group))
        if len(images) == before:
            findings.append(Finding("error", folder.name, "is a class folder without images. Fill it or remove it."))
    for path in sorted(source.iterdir()):
        if path.is_file() and is_image_name(path) and not path.name.startswith("."):
            findings.append(Finding("warning", path.name, "lies outside the class folders and is not used."))
    lost = sorted(set(known) - used) if class_names is None else []
    for relative in lost:
        findings.append(Finding("warning", relative, "stands in groups.csv but is not in the folder."))
    return images


def _files(folder: Path, source: Path, findings: list[Finding]) -> Iterable[Path]:
    for root, dirs, files in os.walk(folder):
        dirs[:] = sorted(name for name in dirs if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if name.startswith(".") or not is_image_name(path):
                continue
            if path.is_symlink() and source.resolve() not in path.resolve().parents:
                message = f"is a link to {path.resolve()}, outside the folder. Copy the file into the folder."
                findings.append(Finding("error", path.relative_to(source).as_posix(), message))
                continue
            yield path


def _read_groups(path: Path, findings: list[Finding]) -> dict[str, str]:
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "group"} <= set(rows[0]):
        findings.append(Finding("error", path.name, "needs the columns image and group."))
        return {}
    return {row["image"].replace("\\", "/"): row["group"] for row in rows}


def _images_of_csv(source: Path, findings: list[Finding]) -> list[_Image]:
    with open(source, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    columns = set(rows[0]) if rows else set()
    class_column = "class_name" if "class_name" in columns else "label"
    if not {"image", class_column} <= columns:
        message = f"needs the columns image and class_name (or label), found {sorted(columns)}."
        findings.append(Finding("error", str(source), message))
        return []
    return [_Image(source.parent / row["image"], row[class_column], row.get("group") or None) for row in rows]


def _records(source: Path, images: list[_Image], names: list[str], findings: list[Finding]) -> list[Record]:
    """Reads every image once: its file hash, its pixels' hash and its size."""
    base = source if source.is_dir() else source.parent
    with ThreadPoolExecutor(2) as pool:
        looks = list(
            tqdm(
                pool.map(_look, [image.path for image in images]),
                total=len(images),
                desc="reading images",
                disable=len(images) < 200,
            )
        )
    records, by_pixels = [], defaultdict(list)
    for image, (problem, file_hash, pixel_hash, side) in zip(images, looks):
        relative = os.path.relpath(image.path, base)
        if problem:
            findings.append(Finding("error", relative, problem))
            continue
        if side < SMALL_SIDE:
            findings.append(Finding("warning", relative, f"is only {side} pixels wide or high."))
        record = {
            "image": str(image.path.resolve()),
            "label": names.index(image.class_name),
            "class_name": image.class_name,
            "group": image.group or relative,
            "origin": "real",
            "sha256": file_hash,
        }
        by_pixels[pixel_hash].append(record)
        records.append(record)
    judge_copies(by_pixels, base, findings)
    return records


def _look(path: Path) -> tuple[str | None, str, str, int]:
    try:
        pixels = read_image(path)
    except (ValueError, FileNotFoundError, MemoryError) as error:
        return str(error), "", "", 0
    content = hashlib.sha256(repr(pixels.shape).encode() + (pixels * 255).round().astype("uint8").tobytes())
    return None, sha256_of(path), content.hexdigest(), min(pixels.shape[1:])


def read_class_names(path: str | Path) -> list[str]:
    """Class names from a JSON list.

    Raises:
        ValueError: when the file holds anything else.
    """
    names = read_json(path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} must hold a list of class names.")
    return names
