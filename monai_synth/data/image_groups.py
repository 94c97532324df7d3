"""The patient, slide or original of each image, from a pattern over its path or from a table."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

from .findings import Finding

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
        findings: an image without a group, or a table that cannot be used, is added here.
    """
    if isinstance(groups, str) and not groups.endswith(".csv"):
        return _by_pattern(relative, groups, findings)
    tables = group_tables(source, groups)
    if not tables:
        return [None] * len(relative)
    known = _Table(tables, findings)
    found = [known.group_of(name) for name in relative]
    if known.names:
        name = ", ".join(table.name for table in tables)
        for image, group in zip(relative, found):
            if group is None:
                message = f"is missing in {name}; name its patient or slide there."
                findings.append(Finding("error", image, message))
        for image in sorted(known.unused):
            findings.append(Finding("warning", image, f"stands in {name} but is not in the folder."))
    return found


def group_tables(source: Path, groups: str | Sequence[str] | None) -> list[Path]:
    """The tables that name the groups of a data set: none for a pattern; see `groups_of` for the arguments."""
    if groups is None:
        return [source / name for name in TABLES if (source / name).is_file()]
    if isinstance(groups, str):
        return [source / groups] if groups.endswith(".csv") else []
    return [source / name for name in groups]


def _by_pattern(relative: Sequence[str], pattern: str, findings: list[Finding]) -> list[str | None]:
    matches = [re.search(pattern, name) for name in relative]
    for name, match in zip(relative, matches):
        if match is None:
            findings.append(Finding("error", name, f"does not match the group pattern {pattern!r}."))
    return [match.group(1) if match else None for match in matches]


class _Table:
    """Groups by what a table calls the images: a path, the folder and the name, the name, or its stem."""

    def __init__(self, paths: Sequence[Path], findings: list[Finding]) -> None:
        self.names: dict[str, str | None] = {}
        self.unused: set[str] = set()  # whole paths that no image had
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
            cell = row[image].replace("\\", "/").removeprefix("./")
            prefix = f"{Path(cell).parent.name}_" if group == WITHIN_CLASS else ""
            self._add(cell, prefix + row[group], whole=image == "image")

    def _add(self, cell: str, group: str, whole: bool) -> None:
        if whole:
            self.unused.add(cell)
        for name in {cell, "/".join(cell.split("/")[-2:]), cell.split("/")[-1]}:
            known = self.names.setdefault(name, group)
            if known != group and name != cell:
                self.names[name] = None  # two images of that name in different groups: only the path tells

    def group_of(self, relative: str) -> str | None:
        """The group of an image by the most of its path that the table has."""
        self.unused.discard(relative)
        name = relative.split("/")[-1]
        for key in (relative, "/".join(relative.split("/")[-2:]), name, os.path.splitext(name)[0]):
            if self.names.get(key):
                return self.names[key]
        return None
