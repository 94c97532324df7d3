"""A folder, a CSV or a datalist as records, and everything that is wrong with it, at once."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from ..utils.cores import usable_cores
from ..utils.io import sha256_of
from .class_names import unfit_class_names
from .copies import join_near_duplicates, judge_copies
from .findings import SHOWN, Finding
from .image_groups import groups_of
from .images import look_at
from .labelled_files import SYNTHETIC, ClassMap, LabelledFile, labelled_files
from .records import Record

logger = logging.getLogger(__name__)

SMALL_SIDE = 32  # pixels


def scan(
    source: str | Path,
    class_names: Sequence[str] | None = None,
    groups: str | Sequence[str] | None = None,
    find_duplicates: bool = True,
    class_map: ClassMap | None = None,
    annotations: str | None = None,
) -> tuple[list[Record], list[str]]:
    """The records of a data set.

    Args:
        source: a folder with one sub-folder per class, a CSV with the columns image and class_name (or label) and
            possibly one of `GROUP_COLUMNS`, or a datalist JSON. A `groups.csv` (image, group) in the folder names
            patients or slides.
        class_names: the classes to use, in the order of their labels; None uses all, sorted.
        groups: regular expression over an image's path below the folder whose first group names the patient or slide,
            or the path of a table that does, see `groups_of`.
        find_duplicates: where no groups are known, images that come from one original share a group, see
            `find_near_duplicates`.
        class_map: class by the data set's own name for it, see `labelled_files`.
        annotations: table below the folder with the class of each image.

    Returns:
        Records {image, label, class_name, group, origin, sha256, pixels}, in the order of `labelled_files`, and the
        class names.

    Raises:
        ValueError: lists what is wrong with the data set.
    """
    records, findings, names = _examine(source, class_names, groups, find_duplicates, class_map, annotations)
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
    groups: str | Sequence[str] | None = None,
    shots: int | None = None,
    find_duplicates: bool = True,
    class_map: ClassMap | None = None,
    annotations: str | None = None,
) -> list[Finding]:
    """Everything about a data set that its owner should know, errors first; see `scan` for the arguments.

    Args:
        shots: images per class that will be asked for, so that a class is told which has fewer when it is split into
            five folds, of which one is for validation and one for test.
    """
    records, findings, names = _examine(source, class_names, groups, find_duplicates, class_map, annotations)
    counts = Counter(record["class_name"] for record in records)
    for name in names:
        if shots is not None and 0 < counts[name] < shots:
            message = f"has {counts[name]} images, fewer than shots={shots}. Add images or ask for fewer shots."
            findings.append(Finding("error", name, message))
    if shots is not None and not any(finding.level == "error" for finding in findings):
        from .splits import assign_roles

        try:
            assign_roles(records, shots)
        except ValueError as error:
            findings.append(Finding("error", str(source), str(error)))
    return sorted(findings, key=lambda finding: (finding.level, finding.path))


def _examine(
    source: str | Path,
    class_names: Sequence[str] | None,
    groups: str | Sequence[str] | None,
    find_duplicates: bool,
    class_map: ClassMap | None,
    annotations: str | None,
) -> tuple[list[Record], list[Finding], list[str]]:
    source = Path(source).resolve()
    findings: list[Finding] = []
    if not source.exists():
        message = "does not exist. Name a folder with one sub-folder of images per class, a CSV or a datalist JSON."
        return [], [Finding("error", str(source), message)], []
    base = source if source.is_dir() else source.parent
    files = labelled_files(source, class_names, class_map, annotations, findings)
    found = sorted({file.class_name for file in files})
    names = list(class_names) if class_names else found
    findings += [Finding("error", name, message) for name, message in unfit_class_names(names).items()]
    for name in names:
        if name not in found:
            folders = sorted(path.name for path in source.iterdir() if path.is_dir()) if source.is_dir() else found
            message = f"has no image. The classes there are {found if class_map else folders}."
            findings.append(Finding("error", name, message))
    if len(names) == 1 and names[0] in found:
        findings.append(Finding("error", names[0], "is the only class. A classifier needs two classes or more."))
    if not names and not findings:
        message = "holds no images. Expected one sub-folder per class with PNG, JPEG, TIFF, BMP, WebP or NIfTI files."
        findings.append(Finding("error", str(source), message))
    own = [file.group for file in files]
    if groups is not None or not any(own):
        relative = [Path(os.path.relpath(file.path, base)).as_posix() for file in files]
        own = groups_of(relative, base, groups, findings)
    else:
        message = f"has no group in {source.name}, where others have one; name its patient or slide there."
        findings += [Finding("error", os.path.relpath(file.path, base), message) for file in files if not file.group]
    records = _records(base, files, own, names, findings)
    if files and not any(own):
        message = (
            "no patients or slides are known, so each image counts as its own group. If several images come from one "
            "patient, name them in a groups.csv (image,group) or by a pattern (groups=...)."
        )
        findings.append(Finding("warning", str(source), message))
        if find_duplicates:
            findings += join_near_duplicates(records, base)
    return records, findings, names


def _records(
    base: Path, files: Sequence[LabelledFile], groups: Sequence[str | None], names: list[str], findings: list[Finding]
) -> list[Record]:
    """Reads every image once: its file hash, its pixels' hash and its size."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        looks = list(
            tqdm(
                pool.map(_look, [file.path for file in files]),
                total=len(files),
                desc="reading images",
                disable=len(files) < 200,
            )
        )
    records, by_pixels = [], defaultdict(list)
    for file, group, (problem, file_hash, pixel_hash, side) in zip(files, groups, looks):
        relative = os.path.relpath(file.path, base)
        if problem:
            findings.append(Finding("error", relative, problem))
            continue
        if side < SMALL_SIDE:
            findings.append(Finding("warning", relative, f"is only {side} pixels wide or high."))
        record = {
            "image": file.path,
            "label": names.index(file.class_name),
            "class_name": file.class_name,
            "group": group or relative,
            "origin": "real",
            "sha256": file_hash,
            "pixels": pixel_hash,
        }
        by_pixels[pixel_hash].append(record)
        records.append(record)
    judge_copies(by_pixels, base, findings)
    return records


def _look(path: str) -> tuple[str | None, str, str, int]:
    try:
        pixel_hash, side, is_synthetic = look_at(path)
    except (ValueError, FileNotFoundError, MemoryError) as error:
        return str(error), "", "", 0
    if is_synthetic:
        return f"says in its metadata that it is {SYNTHETIC}", "", "", 0
    return None, sha256_of(path), pixel_hash, side
