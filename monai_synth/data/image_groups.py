"""The patient, slide or original of each image, from a pattern over its path or from a table."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .findings import SHOWN, Finding

# Tables that are read when they lie in the folder: ours, and the one that LC25000-clean publishes.
TABLES = ("groups.csv", "lc25000_image_groups.csv")
IMAGE_COLUMNS = ("image", "img_path", "path", "file", "filename", "stem")
GROUP_COLUMNS = ("group", "group_id", "patient", "patient_id", "slide", "slide_id", "case_id", "cluster_label")
WITHIN_CLASS = "cluster_label"  # clusters are counted anew in each class


def groups_of(
    relative: Sequence[str], source: Path, groups: str | Sequence[str] | None, findings: list[Finding]
) -> list[str | None]:
    """The group of each image, None where nobody has said.

    Args:
        relative: paths of the images below the data set's folder, with forward slashes.
        source: the data set's folder.
        groups: regular expression whose first group names the patient or slide; or the path of one CSV or a list of
            them, absolute or below `source`. None reads the tables in `TABLES` that lie there.
        findings: an image without a group or with several, a line for several images, or a pattern or table that cannot
            be used, is added here.
    """
    if isinstance(groups, str) and not groups.endswith(".csv"):
        return _by_pattern(relative, groups, findings)
    tables = group_tables(source, groups)
    if not tables:
        return [None] * len(relative)
    table, known = ", ".join(path.name for path in tables), _Table(tables, findings)
    if not known.names:
        return [None] * len(relative)
    lines = [known.lines_of(name) for name in relative]
    images = Counter(lines)
    found: list[str | None] = []
    for image, own in zip(relative, lines):
        groups_there, problem = sorted({known.groups[line] for line in own}), None
        if not own:
            problem = f"is missing in {table}; name its patient or slide there."
        elif "" in groups_there:
            problem = f"has no group in {table}; name its patient or slide there."
        elif len(groups_there) > 1 or (image not in known.paths and images[own] > len(own)):
            problem = (
                f"has a name that stands in {table} {len(own)} times, for {images[own]} images, with the groups "
                f"{groups_there[:SHOWN]}. Give every image one line, with its path below the folder."
            )
        if problem:
            findings.append(Finding("error", image, problem))
        found.append(None if problem else groups_there[0])
    matched = {line for own in lines for line in own}
    for image in sorted({cell for line, cell in known.whole.items() if line not in matched}):
        findings.append(Finding("warning", image, f"stands in {table} but is not in the folder."))
    return found


def group_tables(source: Path, groups: str | Sequence[str] | None) -> list[Path]:
    """The tables that name the groups of a data set: none for a pattern; see `groups_of` for the arguments."""
    if groups is None:
        return [source / name for name in TABLES if (source / name).is_file()]
    if isinstance(groups, str):
        return [source / groups] if groups.endswith(".csv") else []
    return [source / name for name in groups]


def _by_pattern(relative: Sequence[str], pattern: str, findings: list[Finding]) -> list[str | None]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        message = f"is no regular expression: {error}. Correct --groups; the path of a table ends in .csv."
        findings.append(Finding("error", pattern, message))
        return [None] * len(relative)
    if not compiled.groups:
        message = (
            r"has no group in parentheses, which names the patient or slide, as in 'patient(\d+)'. Correct --groups."
        )
        findings.append(Finding("error", pattern, message))
        return [None] * len(relative)
    matches = [compiled.search(name) for name in relative]
    found = [match.group(1) or None if match else None for match in matches]
    for name, match, group in zip(relative, matches, found):
        if match is None:
            findings.append(Finding("error", name, f"does not match the group pattern {pattern!r}."))
        elif group is None:
            message = f"matches the group pattern {pattern!r}, but its first group is empty there. Correct --groups."
            findings.append(Finding("error", name, message))
    return found


def group_in(row: Mapping[str, Any], class_name: str) -> str | None:
    """The group that a row or record names, in the first of `GROUP_COLUMNS` that it has.

    Args:
        row: of a table or a datalist.
        class_name: its class, within which a cluster's label counts.
    """
    column = next((name for name in GROUP_COLUMNS if name in row), "")
    group = str(row.get(column) or "").strip()
    return f"{class_name}_{group}" if group and column == WITHIN_CLASS else group or None


class _Table:
    """Groups by what a table calls the images: a path, the folder and the name, the name, or its stem."""

    def __init__(self, paths: Sequence[Path], findings: list[Finding]) -> None:
        self.groups: list[str] = []  # of each line
        self.paths: dict[str, list[int]] = {}  # lines by what they call the image
        self.names: dict[str, list[int]] = {}  # lines by that and its ends
        self.whole: dict[int, str] = {}  # what lines that name a file call it
        for path in paths:
            self._read(path, findings)

    def _read(self, path: Path, findings: list[Finding]) -> None:
        if not path.is_file():
            findings.append(Finding("error", str(path), "does not exist. Name the table of groups with --groups."))
            return
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        columns = list(rows[0]) if rows else []
        image = next((name for name in IMAGE_COLUMNS if name in columns), None)
        group = next((name for name in GROUP_COLUMNS if name in columns), None)
        if image is None or group is None:
            message = (
                f"needs the columns image and group (or {', '.join(IMAGE_COLUMNS[1:])}; {', '.join(GROUP_COLUMNS[1:])}"
                f"), found {columns}."
            )
            findings.append(Finding("error", path.name, message))
            return
        for row in rows:
            cell = (row[image] or "").replace("\\", "/").removeprefix("./")
            self._add(cell, group_in(row, Path(cell).parent.name) or "", whole=image == "image")

    def _add(self, cell: str, group: str, whole: bool) -> None:
        line = len(self.groups)
        if whole:
            self.whole[line] = cell
        self.groups.append(group)
        self.paths.setdefault(cell, []).append(line)
        for name in {cell, "/".join(cell.split("/")[-2:]), cell.split("/")[-1]}:
            self.names.setdefault(name, []).append(line)

    def lines_of(self, relative: str) -> tuple[int, ...]:
        """The lines that are about an image, by the most of its path that the table has."""
        if relative in self.paths:
            return tuple(self.paths[relative])
        name = relative.split("/")[-1]
        for key in ("/".join(relative.split("/")[-2:]), name, os.path.splitext(name)[0]):
            if key in self.names:
                return tuple(self.names[key])
        return ()
