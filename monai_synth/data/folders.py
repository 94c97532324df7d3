"""What of a data set's folder is read: neither what is hidden nor what links lead to elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .findings import Finding

NOT_UTF8 = "has a name that is not UTF-8, which no datalist can hold. Rename it."


def shown(name: str) -> str:
    r"""A name as text that can be written anywhere: bytes that are no UTF-8 become \x.., all else stays."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_hidden(name: str) -> bool:
    """Whether a folder's name says that it is not for the user: a dot at its beginning, or what macOS packs along."""
    return name.startswith(".") or name == "__MACOSX"


def linked_folders(root: str, dirs: Sequence[str]) -> list[str]:
    """The folders that are links, which a walk does not follow."""
    return [name for name in sorted(dirs) if not is_hidden(name) and os.path.islink(os.path.join(root, name))]


def leads_outside(path: Path, source: Path) -> bool:
    """Whether a path is a link to what is not in the data set's folder."""
    return path.is_symlink() and source.resolve() not in path.resolve().parents


def link_finding(path: Path, source: Path) -> Finding:
    """An error for a link that leads out of the data set, a warning for one to a folder within, which is read there."""
    if leads_outside(path, source):
        message = f"is a link to {shown(str(path.resolve()))}, outside the folder. Put a copy in its place."
        return Finding("error", shown(os.path.relpath(path, source)), message)
    message = f"is a link to the folder {shown(str(path.resolve()))}, and is not followed."
    return Finding("warning", shown(os.path.relpath(path, source)), message)


def visible_files(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each folder with its folders and files, sorted, as `os.walk` gives them; what is hidden is left out."""
    for root, dirs, files in os.walk(folder):
        dirs[:] = sorted(name for name in dirs if not is_hidden(name))
        yield root, dirs, sorted(name for name in files if not name.startswith("."))
