"""Which image files a data set has and what class each is of, in the layouts that data sets are published in."""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .findings import SHOWN, Finding
from .folders import (
    NOT_UTF8,
    is_hidden,
    leads_outside,
    link_finding,
    linked_folders,
    shown,
    visible_files,
)
from .image_groups import group_in
from .images import is_image_name
from .records import SECTIONS, datalist_content

DEPTH = 4  # levels below the data set's folder at which class folders are looked for
ClassMap = Mapping[str, str | None]
SYNTHETIC = (
    "synthetic. A data set, also one of --external_dir, holds real images alone; synthetic ones train a classifier by "
    "--synthetic_datalist."
)
RECORD_NEEDS = (
    "has no usable {!r}: {!r}. A record needs image, a path below the file's folder, and class_name, or label, which "
    "is a name, or a number: of the file's class_names where it has them."
)


@dataclass(frozen=True)
class LabelledFile:
    """An image file of a data set.

    Args:
        path: absolute.
        class_name: after the class map.
        group: patient or slide where the data set's own table names it.
    """

    path: str
    class_name: str
    group: str | None = None


def labelled_files(
    source: Path,
    class_names: Sequence[str] | None,
    class_map: ClassMap | None,
    annotations: str | None,
    findings: list[Finding],
) -> list[LabelledFile]:
    """The image files of a data set that belong to a wanted class.

    With a class map they are sorted by class and path. Without one, those of a folder come class folder by class
    folder, each with its own files before those of its sub-folders, and those of a table or datalist as they stand
    there.

    Args:
        source: a folder of class folders (with a class map or class names at any depth to 4, so that the published
            archives can stay as they are), a CSV with the columns image and class_name (or label) and possibly one of
            `GROUP_COLUMNS`, or a datalist JSON, this program's or one that MONAI reads ({"training": [{"image",
            "label"}]}).
        class_names: the classes to use; None uses all.
        class_map: class by the name that the data set has for it; several names may be one class, and a name that is
            missing or null is left out. None takes the names as they are.
        annotations: table below the folder that names the class of each image (see `read_annotations`), for data sets
            whose labels are not the folders' names.
        findings: what is wrong is added here.
    """
    if annotations is not None:
        files = _of_annotations(source, annotations, findings)
    elif source.is_dir():
        wanted = class_names if class_map is None else [name for name, target in class_map.items() if target]
        files = list(_of_folders(source, wanted, class_map, findings))
    elif source.suffix == ".csv":
        files = _of_csv(source, findings)
    else:
        files = list(_of_datalist(source, findings))
    if class_map is not None:
        files = _mapped(files, class_map, source, findings)
    if class_names is not None:
        left = Counter(file.class_name for file in files if file.class_name not in class_names)
        for name, count in sorted(left.items()):
            message = f"is not in class_names, {list(class_names)}: its {count} images are left out."
            findings.append(Finding("warning", name, message))
        files = [file for file in files if file.class_name in class_names]
    return sorted(files, key=lambda file: (file.class_name, file.path)) if class_map is not None else files


def _of_folders(
    source: Path, wanted: Sequence[str] | None, class_map: ClassMap | None, findings: list[Finding]
) -> Iterator[LabelledFile]:
    folders = _class_folders(source, wanted, findings)
    for folder in folders:
        if leads_outside(folder, source):
            findings.append(link_finding(folder, source))
            continue
        if shown(folder.name) != folder.name:
            findings.append(Finding("error", shown(folder.name), NOT_UTF8))
            continue
        found = False
        for path in _image_paths(folder, source, findings):
            found = True
            yield LabelledFile(path, folder.name)
        if not found:
            name = folder.relative_to(source).as_posix()
            findings.append(Finding("error", name, "is a class folder without images. Fill it or remove it."))
    for stray in sorted(source.iterdir()):
        if stray.is_file() and is_image_name(stray) and not stray.name.startswith("."):
            findings.append(Finding("warning", shown(stray.name), "lies outside the class folders and is not used."))
    known, where = (wanted, "class_names") if class_map is None else (class_map, "the class map")
    if known is not None:
        for folder in sorted({other for one in folders for other in one.parent.iterdir() if other.is_dir()}):
            if folder.name not in known and not is_hidden(folder.name):
                findings.append(Finding("warning", shown(folder.name), f"is not in {where} and is left out."))


def _class_folders(source: Path, wanted: Sequence[str] | None, findings: list[Finding]) -> list[Path]:
    """The folders directly below, or those with a wanted name at any depth to 4, sorted.

    A name that is found in several places is an error, and added to the findings.
    """
    if wanted is None:
        return sorted(path for path in source.iterdir() if path.is_dir() and not is_hidden(path.name))
    places: dict[str, list[Path]] = defaultdict(list)
    for root, dirs, _ in os.walk(source):
        depth = len(Path(root).relative_to(source).parts)
        findings += [
            link_finding(Path(root, name), source) for name in linked_folders(root, dirs) if name not in wanted
        ]
        for name in [name for name in sorted(dirs) if name in wanted]:
            places[name].append(Path(root, name))
        dirs[:] = [] if depth + 1 >= DEPTH else [d for d in sorted(dirs) if d not in wanted and not is_hidden(d)]
    for name, folders in places.items():
        if len(folders) > 1:
            message = f"is a class folder in several places: {', '.join(map(str, folders))}. Name one's parent folder."
            findings.append(Finding("error", name, message))
    return sorted(folders[0] for folders in places.values())


def _image_paths(folder: Path, source: Path, findings: list[Finding]) -> Iterator[str]:
    for root, dirs, files in visible_files(folder):
        findings += [link_finding(Path(root, name), source) for name in linked_folders(root, dirs)]
        for name in filter(is_image_name, files):
            path = os.path.join(root, name)
            relative = os.path.relpath(path, source)
            if shown(relative) != relative:
                findings.append(Finding("error", shown(relative), NOT_UTF8))
                continue
            if leads_outside(Path(path), source):
                findings.append(link_finding(Path(path), source))
                continue
            yield path


def _of_csv(source: Path, findings: list[Finding]) -> list[LabelledFile]:
    with open(source, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []  # of an empty file there are none
        rows = [(reader.line_num, row) for row in reader]
    class_column = "class_name" if "class_name" in columns else "label"
    if not {"image", class_column} <= set(columns):
        message = f"needs the columns image and class_name (or label), found {sorted(columns)}."
        findings.append(Finding("error", str(source), message))
        return []
    folder = str(source.parent.resolve())
    files = []
    for line, row in rows:
        image, class_name = ((row[name] or "").strip() for name in ("image", class_column))
        if not image or not class_name:
            empty = [name for name, cell in (("image", image), (class_column, class_name)) if not cell]
            message = f"has nothing in the column {' and '.join(empty)}. Name the image and its class, or remove it."
            findings.append(Finding("error", f"{source.name}, line {line}", message))
            continue
        files.append(LabelledFile(os.path.join(folder, image), class_name, group_in(row, class_name)))
    return files


def _of_datalist(source: Path, findings: list[Finding]) -> Iterator[LabelledFile]:
    content = datalist_content(source)
    base = source.resolve().parent / content.get("base_dir", ".")
    for section in dict.fromkeys(SECTIONS.values()):
        for number, row in enumerate(content.get(section, [])):
            row = row if isinstance(row, dict) else {"image": row}  # MONAI lists images without a label as mere paths
            class_name = _class_in(row, content.get("class_names"))
            image = os.path.normpath(base / row["image"]) if isinstance(row.get("image"), str) else None
            if image is None or class_name is None:
                key = "image" if image is None else "class_name" if "class_name" in row else "label"
                findings.append(Finding("error", f"{source.name}, {section}[{number}]", RECORD_NEEDS.format(key, row)))
            elif row.get("origin") == "synthetic":
                findings.append(Finding("error", image, f"is, by its origin in {source.name}, {SYNTHETIC}"))
            else:
                yield LabelledFile(image, class_name, group_in(row, class_name))


def _class_in(row: Mapping[str, Any], class_names: Sequence[str] | None) -> str | None:
    """The class of a datalist's record, None where it has none: class_name, or label, a number or a name."""
    name = row.get("class_name", row.get("label"))
    if "class_name" not in row and type(name) is int:
        if class_names is None:
            return str(name)
        name = class_names[name] if isinstance(class_names, list) and 0 <= name < len(class_names) else None
    return name.strip() or None if isinstance(name, str) else None


def _of_annotations(source: Path, annotations: str, findings: list[Finding]) -> list[LabelledFile]:
    table = source / annotations
    if not table.is_file():
        message = f"is not in {source}. It names the class of each image; name it with --annotations, or none."
        findings.append(Finding("error", annotations, message))
        return []
    rows = read_annotations(table)
    folder = _folder_of(source, rows)
    files, lost = [], []
    for name, class_name in rows:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            files.append(LabelledFile(path, class_name))
        else:
            lost.append(name)
    for name in lost[:SHOWN]:
        message = f"stands in {annotations} but is not there ({len(lost)} such files). Is the download complete?"
        findings.append(Finding("error", name, message))
    return files


def read_annotations(path: Path) -> list[tuple[str, str]]:
    """Image and class of each line: the first two columns of a table with commas or blanks, a heading or none.

    Raises:
        ValueError: for a line with fewer than two columns; names it.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        cells = [cell.strip().strip('"') for cell in (line.split(",") if "," in line else line.split())]
        if not line.strip() or (number == 1 and not is_image_name(cells[0])):
            continue
        if len(cells) < 2:
            raise ValueError(f"{path}, line {number}, is {line!r}. A line names an image and its class.")
        rows.append((cells[0].replace("\\", "/"), cells[1]))
    return rows


def _folder_of(source: Path, rows: Sequence[tuple[str, str]]) -> str:
    """The folder below that the names in a table are relative to: the first that holds one of the first images."""
    for root, dirs, _ in os.walk(source):
        dirs[:] = sorted(name for name in dirs if not is_hidden(name))
        if any(os.path.isfile(os.path.join(root, name)) for name, _ in rows[:SHOWN]):
            return root
        if len(Path(root).relative_to(source).parts) + 1 >= DEPTH:
            dirs[:] = []
    return str(source)


def _mapped(
    files: Sequence[LabelledFile], class_map: ClassMap, source: Path, findings: list[Finding]
) -> list[LabelledFile]:
    found = {file.class_name for file in files}
    for name, target in class_map.items():
        if target and name not in found:
            others = [other for other, to in class_map.items() if to == target and other in found]
            level = "warning" if others else "error"
            message = f"is in the class map, for {target!r}, but {source} has no image of it."
            findings.append(Finding(level, name, message))
    return [replace(file, class_name=str(target)) for file in files if (target := class_map.get(file.class_name))]
