"""What happens before the first stage: the settings are checked, the data set is scanned and split, once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from ..data.fitted_images import EXTERNAL
from ..data.records import Record
from ..utils.io import read_json, sha256_of, write_json
from .session import digest, plain_settings

logger = logging.getLogger(__name__)

PHANTOM = "phantom"  # the value of `dataset_dir` that stands for the drawn images
SCAN_SETTINGS = ("class_names", "class_map", "annotations", "groups", "find_duplicates")
EXTERNAL_SETTINGS = ("external_dir", "external_class_map")
SPLIT_SETTINGS = (*SCAN_SETTINGS, *EXTERNAL_SETTINGS, "shots", "num_folds", "fold", "seed")
DECISIVE = ("sha256", "label", "group", "role")  # of a record, for what later stages make of it
PHANTOM_SETTINGS = ("phantom_set", "phantoms_per_class", "phantom_patients", "image_size")
PHANTOM_NOTE = "phantoms.json"  # in the folder of phantoms: what they were drawn with


def prepare_data(workflow: ConfigWorkflow) -> Path:
    """Scans and splits the data set of a config, once, and gives the path of `datalist.json`.

    Raises:
        ValueError: when the data set cannot be used, when the output folder lies in it, or when that holds the split of
            another data set.
    """
    from ..data import assign_roles, check_wall, save_datalist

    parser = workflow.parser
    output_dir = Path(parser.get_parsed_content("output_dir"))
    settings = plain_settings(parser.config)
    names = SPLIT_SETTINGS + (PHANTOM_SETTINGS if settings.get("dataset_dir", PHANTOM) == PHANTOM else ())
    wanted: dict[str, Any] = json.loads(json.dumps({name: settings.get(name) for name in names}))
    source, path = Path(str(settings.get("dataset_dir", PHANTOM))), output_dir / "datalist.json"
    if str(source) == PHANTOM:
        if path.exists():
            refuse_other_phantoms(path, wanted)
        source = draw_phantoms(output_dir / "phantoms", wanted, may_replace=not path.exists())
    refuse_output_within(output_dir, {"dataset_dir": source, "external_dir": wanted["external_dir"]})
    wanted["files"] = listing(source, wanted["annotations"], wanted["groups"])
    if wanted["external_dir"] is not None:
        wanted["external_files"] = listing(Path(wanted["external_dir"]))
    if path.exists():
        refuse_other_split(path, wanted)
        return path
    records, class_names = scan_once(source, wanted)
    records = assign_roles(
        records, shots=wanted["shots"], num_folds=wanted["num_folds"], fold=wanted["fold"], seed=wanted["seed"]
    )
    records += external_records(wanted, class_names)
    check_wall(records)
    identity = digest([wanted, [[record[key] for key in DECISIVE] for record in records]])
    base_dir = source if source.is_dir() else source.parent
    save_datalist(path, records, class_names, base_dir, identity=identity, settings=wanted)
    counts = Counter(record["role"] for record in records)
    logger.info("Split %d images of %d classes: %s.", len(records), len(class_names), dict(counts))
    return path


def refuse_output_within(output_dir: Path, folders: Mapping[str, Path | str | None]) -> None:
    """Raises when what a run writes would be read as part of a data set.

    Args:
        output_dir: of the run.
        folders: of the data sets, by the name of their setting; None is no data set.
    """
    for name, folder in folders.items():
        if folder is not None and Path(folder).resolve() in (output_dir.resolve(), *output_dir.resolve().parents):
            raise ValueError(
                f"output_dir {output_dir} lies in {name} {folder}, whose images all belong to the data set, also those "
                "that the run would write. Name an --output_dir outside it."
            )


_scanned: dict[str, tuple[list[Record], list[str]]] = {}  # by what decides them; a study splits one scan many times


def scan_once(source: Path, wanted: Mapping[str, Any]) -> tuple[list[Record], list[str]]:
    """The records and class names of a data set, scanned once in this process for the same files and settings.

    Args:
        source: folder, CSV or datalist.
        wanted: the scan's settings, and `files`, the fingerprint of the data set's files.

    Raises:
        ValueError: when the data set cannot be used.
    """
    from ..data import scan

    options = {name: wanted[name] for name in SCAN_SETTINGS}
    options["find_duplicates"] = options["find_duplicates"] is not False
    key = digest([str(source.resolve()), wanted["files"], options])
    if key not in _scanned:
        _scanned[key] = scan(source, **options)
    records, names = _scanned[key]
    return [dict(record) for record in records], list(names)


def external_records(wanted: Mapping[str, Any], class_names: Sequence[str]) -> list[Record]:
    """The images of another data set, which are judged at the end beside the test images: role "external".

    Args:
        wanted: `external_dir` and `external_class_map`, which is `class_map` where it is not given.
        class_names: of the training data, which the other data set must have.

    Raises:
        ValueError: when the data set cannot be used or lacks a class.
    """
    if wanted["external_dir"] is None:
        return []
    settings = {
        "class_names": list(class_names),
        "class_map": wanted["external_class_map"] or wanted["class_map"],
        "annotations": None,
        "groups": None,
        "find_duplicates": False,
        "files": wanted["external_files"],
    }
    try:
        records, _ = scan_once(Path(wanted["external_dir"]), settings)
    except ValueError as error:
        raise ValueError(
            f"external_dir: {error}\nIt must have all classes of the training data, {list(class_names)}. Its own names "
            "go into --external_class_map; classes that both have are chosen with --class_names."
        ) from None
    return [{**record, "role": "external", "fold": -1, "group": EXTERNAL + record["group"]} for record in records]


def refuse_other_split(path: Path, wanted: dict[str, Any]) -> None:
    """Raises when a datalist was made with other settings or the files of its data set have changed since."""
    from .stage_record import changed

    lines = changed(read_json(path).get("settings", {}), wanted)
    if lines:
        raise ValueError(
            f"{path} was made with other settings, and a split is made once. What differs:\n  "
            + "\n  ".join(lines)
            + "\nName another --output_dir, or remove that folder to begin anew."
        )


def refuse_other_phantoms(path: Path, wanted: dict[str, Any]) -> None:
    """Raises, before phantoms are drawn, when a datalist is of another data set or of phantoms with other settings."""
    content = read_json(path)
    made = content.get("settings", {})
    if "phantom_set" not in made:
        base = os.path.normpath(path.parent / content.get("base_dir", "."))
        raise ValueError(
            f"{path.parent} holds the split of another data set, whose images lie in {base}, and none was named, which "
            "asks for phantoms. Add --dataset_dir with the folder, CSV or datalist that it was made of, such as "
            f"--dataset_dir {base}, or name another --output_dir."
        )
    refuse_other_split(path, {**made, **wanted})


def draw_phantoms(folder: Path, settings: dict[str, Any], may_replace: bool) -> Path:
    """A folder of phantoms for trying out, drawn when it is not there yet, with a note of what they are.

    Args:
        folder: of the phantoms.
        settings: of the run.
        may_replace: draws anew where the note names other settings, as after a run that was stopped before its split.

    Raises:
        ValueError: for an unknown set, or when the folder would be drawn anew and has no note that it is ours.
    """
    from ..data.phantom import PHANTOM_SETS, write_phantoms

    if settings["phantom_set"] not in PHANTOM_SETS:
        raise ValueError(f"phantom_set is {settings['phantom_set']!r}. It can be one of {sorted(PHANTOM_SETS)}.")
    drawn = {name: settings[name] for name in PHANTOM_SETTINGS}
    drawn["class_names"] = list(settings["class_names"] or PHANTOM_SETS[settings["phantom_set"]])
    note = folder / PHANTOM_NOTE
    if folder.exists() and (not may_replace or _noted(note) == drawn):
        return folder
    logger.info("No --dataset_dir was given: drawing phantoms of %s into %s.", settings["phantom_set"], folder)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    write_phantoms(
        part,
        drawn["class_names"],
        images_per_class=settings["phantoms_per_class"],
        num_patients=settings["phantom_patients"],
        size=settings["image_size"],
    )
    write_json(part / PHANTOM_NOTE, drawn)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(part, folder)
    return folder


def _noted(note: Path) -> dict[str, Any]:
    """What phantoms were drawn with."""
    if not note.is_file():
        raise ValueError(
            f"{note.parent} has no {note.name}, which says what its phantoms were drawn with. Remove the folder so "
            f"that they are drawn anew, or name it with --dataset_dir and another folder with --output_dir."
        )
    content: dict[str, Any] = read_json(note)
    return content


def listing(source: Path, annotations: str | None = None, groups: str | Sequence[str] | None = None) -> str:
    """A fingerprint of a data set's files: names and sizes of the images under a folder, and the content of its tables.

    What the scan passes over, such as what a file manager leaves in a folder, makes no other data set of it.
    Corrected labels or groups are often as long as wrong ones, so the tables are read; images are not.

    Args:
        source: folder, or a file, whose content counts; what is missing counts as empty.
        annotations: table below the folder with the class of each image.
        groups: as in `scan`.
    """
    from ..data.folders import linked_folders, visible_files
    from ..data.image_groups import group_tables
    from ..data.images import is_image_name

    tables = group_tables(source if source.is_dir() else source.parent, groups)
    tables += [] if annotations is None else [source / annotations]
    found = hashlib.sha256(source.read_bytes() if source.is_file() else b"")
    for root, dirs, files in visible_files(source):
        for path in (Path(root, name) for name in linked_folders(root, dirs)):  # class folders among them are read
            found.update(os.fsencode(f"{path.relative_to(source)}:{os.readlink(path)}\n"))
        for path in (Path(root, name) for name in files):
            if is_image_name(path) or path in tables:
                size = path.stat().st_size if path.exists() else -1
                found.update(os.fsencode(f"{path.relative_to(source)}:{size}\n"))
    for table in filter(Path.is_file, tables):
        found.update(f"{table.name}:{sha256_of(table)}\n".encode())
    return found.hexdigest()
