"""Which names a class may have: each is also the name of a folder, on any file system."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ..utils.io import PathLike


def unfit_class_names(names: Sequence[str]) -> dict[str, str]:
    """What is wrong with the class names that cannot be names of folders beside each other, by name.

    Many file systems take names for one that differ in case or in the Unicode form of a letter alone.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[unicodedata.normalize("NFC", name).casefold()].append(name)
    unfit = {}
    for name in names:
        others = [other for other in alike[unicodedata.normalize("NFC", name).casefold()] if other != name]
        if not name.strip() or name.startswith(".") or set(name) & set("/\\\0"):
            unfit[name] = (
                "cannot be the name of a folder. Rename the class: without '/', '\\' or a dot at its beginning."
            )
        elif others:
            unfit[name] = f"is told from {others} by case or the form of its letters alone. Rename one, or join them."
    return unfit


def check_class_names(names: Iterable[str], source: PathLike) -> None:
    """Checks that each class can have a folder of its own, within the output folder.

    Args:
        names: of classes, each once or more often.
        source: where they stand, for the message.

    Raises:
        ValueError: for a name that `unfit_class_names` finds; names the first and what is wrong with it.
    """
    for name, problem in unfit_class_names(sorted(set(names))).items():
        raise ValueError(f"{source} has the class {name!r}, which {problem}")
