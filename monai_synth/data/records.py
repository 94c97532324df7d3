"""Records and datalists: one image is one dictionary, which only ever gains fields."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.io import PathLike, atomic_path, read_json, write_json

Record = dict[str, Any]
ORIGINS = ("real", "synthetic")
SECTIONS = {"shots": "training", "train": "training", "val": "validation", "test": "test", "external": "external"}
ROLES = tuple(SECTIONS)
TESTS = ("test", "external")  # roles that are looked at once, at the end; external is another data set
JUDGES = ("val", *TESTS)  # roles that nothing is trained on
KEPT = ("image", "label", "class_name", "origin")  # what training needs of a record; the rest differs by origin


def by_number(record: Mapping[str, Any]) -> tuple[int, str]:
    """Sorts the synthetic images of a class in the order in which they are asked for, whatever folder they lie in."""
    name = Path(record["image"]).name
    return len(name), name


def load_datalist(path: PathLike) -> list[Record]:
    """The records of a datalist, their image paths made absolute.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when the file is no datalist.
    """
    content = _content(path)
    base = Path(path).resolve().parent / content.get("base_dir", ".")
    return [
        {**record, "image": os.path.normpath(base / record["image"])}
        for section in dict.fromkeys(SECTIONS.values())
        for record in content.get(section, [])
    ]


def class_names_of(path: PathLike) -> list[str]:
    """The class names of a datalist, in the order of their labels."""
    return list(_content(path)["class_names"])


def _content(path: PathLike) -> dict[str, Any]:
    content = datalist_content(path)
    if "class_names" not in content:
        raise ValueError(f"{path} is no datalist of this program: it needs the keys 'class_names' and 'training'.")
    return content


def datalist_content(path: PathLike) -> dict[str, Any]:
    """The content of a datalist of this program, unchanged since it was written, or of one that MONAI reads.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when the file is no datalist, or was changed.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no datalist {path}. The stage before this one writes it; run that first.")
    content = read_json(path)
    if not isinstance(content, dict) or "training" not in content:
        raise ValueError(f"{path} is no datalist: it needs the key 'training', and lists the records there.")
    if "digest" in content and content["digest"] != _digest(content):
        raise ValueError(
            f"{path} was changed by hand since it was written, so nothing that it says of roles and origins can be "
            "relied on. Restore it, or remove its folder and let the stage write it anew; images are sorted out with "
            "--filter, and a datalist of your own, without the key 'digest', is named with --dataset_dir."
        )
    return content


def save_datalist(
    path: PathLike, records: Sequence[Record], class_names: Sequence[str], base_dir: PathLike, **extra: Any
) -> None:
    """Writes records as a datalist that MONAI's `load_decathlon_datalist` reads as well.

    Records of the roles shots and train become "training", val becomes "validation", test and external keep their
    names; synthetic records have no role and are "training".

    Args:
        path: of the JSON file.
        records: with absolute image paths.
        class_names: in the order of their labels.
        base_dir: folder that the paths in the file are relative to.
        extra: further keys of the file.

    Raises:
        ValueError: when the records break the wall between training and test, see `check_wall`.
    """
    check_wall(records)
    base = Path(base_dir).resolve()
    sections: dict[str, list[Record]] = {section: [] for section in SECTIONS.values()}
    for record in records:
        relative = os.path.relpath(Path(record["image"]).resolve(), base)
        sections[SECTIONS[record.get("role", "train")]].append({**record, "image": Path(relative).as_posix()})
    inside = Path(os.path.relpath(base, Path(path).resolve().parent)).as_posix()
    content = {"class_names": list(class_names), "base_dir": inside, **extra, **sections}
    write_json(path, {**content, "digest": _digest(content)})


def save_synthetic_datalist(path: PathLike, records: Iterable[Record], class_names: Sequence[str]) -> None:
    """Writes records of synthetic images as `save_datalist` does, a line each, so that a million take no memory.

    Args:
        path: of the JSON file.
        records: with image paths relative to the file's folder, all of synthetic images without a role.
        class_names: in the order of their labels.

    Raises:
        ValueError: for a record that is not of a synthetic image.
    """
    sections = list(dict.fromkeys(SECTIONS.values()))
    digest = hashlib.sha256(f"[{json.dumps(list(class_names))}, [".encode())
    separator = ""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        names = json.dumps(list(class_names), ensure_ascii=False)
        file.write(f'{{\n  "class_names": {names},\n  "base_dir": ".",\n  "{sections[0]}": [')
        for record in records:
            if record.get("origin") != "synthetic" or "role" in record:
                raise ValueError(f"{record['image']} is no record of a synthetic image without a role: {record}.")
            file.write(f"{separator}\n    {json.dumps(record, ensure_ascii=False)}")
            digest.update(f"{', ' if separator else ''}{json.dumps(record, sort_keys=True)}".encode())
            separator = ","
        file.write("\n  ]")
        for section in sections[1:]:
            file.write(f',\n  "{section}": []')
            digest.update(b"], [")
        digest.update(b"]]")
        file.write(f',\n  "digest": "{digest.hexdigest()}"\n}}\n')


def _digest(content: dict[str, Any]) -> str:
    """The SHA-256 of the records and class names of a datalist, as JSON has them."""
    parts = [content.get("class_names"), *(content.get(section, []) for section in dict.fromkeys(SECTIONS.values()))]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def select(
    records: Sequence[Record], roles: str | Sequence[str], class_names: Sequence[str] | None = None
) -> list[Record]:
    """The records of one role or of several, of some classes or of all.

    Raises:
        ValueError: for a role that does not exist, or one that no record has.
    """
    wanted = (roles,) if isinstance(roles, str) else tuple(roles)
    unknown = [role for role in wanted if role not in ROLES]
    if unknown:
        raise ValueError(f"There is no role {unknown}. Roles are {', '.join(ROLES)}.")
    chosen = [
        record
        for record in records
        if record.get("role") in wanted and (class_names is None or record["class_name"] in class_names)
    ]
    if not chosen:
        of_classes = "" if class_names is None else f" and one of the classes {list(class_names)}"
        raise ValueError(f"No record has the role {' or '.join(wanted)}{of_classes}.")
    return chosen


def shots_and_prior(
    datalist_path: PathLike, class_names: Sequence[str], prior_datalist: PathLike | None, prior_weight: float = 1.0
) -> list[Record]:
    """What an adapter learns from: the shots, and images of the base itself, so that it forgets less of what it knew.

    Args:
        datalist_path: of the real images.
        class_names: the classes that are learned.
        prior_datalist: of the base's images; None leaves them out.
        prior_weight: of one of the base's images in the loss; a shot has 1.

    Reference:
        Ruiz et al., "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation", 2023,
        equation 2. https://arxiv.org/abs/2208.12242
    """
    shots = select(load_datalist(datalist_path), "shots", class_names)
    drawn = [] if prior_datalist is None else load_datalist(prior_datalist)
    drawn = [record for record in drawn if record["class_name"] in class_names]
    weights = [1.0] * len(shots) + [prior_weight] * len(drawn)
    return [
        {**{key: record[key] for key in KEPT}, "weight": weight} for record, weight in zip([*shots, *drawn], weights)
    ]


def assessed_records(datalist_path: PathLike, synthetic_dir: PathLike) -> list[Record]:
    """The images that an assessment may see: real ones of every role but test, and the synthetic ones.

    Args:
        datalist_path: of the real images.
        synthetic_dir: folder with the synthetic images' `datalist.json`.
    """
    real = [record for record in load_datalist(datalist_path) if record["role"] not in TESTS]
    synthetic = load_datalist(Path(synthetic_dir) / "datalist.json")
    check_wall([*real, *synthetic])
    return [*real, *synthetic]


def filtered_records(datalist_path: PathLike, synthetic_dir: PathLike) -> list[Record]:
    """The images that a filter sees: the shots, each in its 8 flips and turns, the validation images, the drawn ones.

    Args:
        datalist_path: of the real images.
        synthetic_dir: folder with the synthetic images' `datalist.json`.
    """
    real = load_datalist(datalist_path)
    drawn = load_datalist(Path(synthetic_dir) / "datalist.json")
    return [*turned(select(real, "shots")), *select(real, "val"), *drawn]


def turned(records: Sequence[Record]) -> list[Record]:
    """Each record in its 8 flips and quarter turns, which have features of their own; the first is the record."""
    return [
        {**record, "view": view, "sha256": record["sha256"] + (f"/view{view}" if view else "")}
        for record in records
        for view in range(8)
    ]


def check_wall(records: Sequence[Record]) -> None:
    """Checks that nothing that trains is also used to judge.

    Raises:
        ValueError: for a synthetic record with the role val or test, a group, the same file or the same pixels on
            both sides, or in two classes. Records of earlier versions do not say what their pixels are. The message
            names the images.
    """
    for record in records:
        if record.get("origin") not in ORIGINS:
            raise ValueError(f"{record['image']} has the origin {record.get('origin')!r}. Origins are {ORIGINS}.")
        if record["origin"] == "synthetic" and record.get("role") in JUDGES:
            raise ValueError(
                f"{record['image']} is synthetic and has the role {record['role']!r}. Only real images may judge."
            )
    _check_key(records, "group", "side", "Groups must stay on one side of the split")
    _check_key(records, "sha256", "side", "The same file stands on two sides of the split")
    _check_key(records, "sha256", "label", "The same file stands in two classes")
    _check_key(records, "pixels", "side", "Files with the same pixels stand on two sides of the split")
    _check_key(records, "pixels", "label", "Files with the same pixels stand in two classes")


def _check_key(records: Sequence[Record], key: str, value: str, sentence: str) -> None:
    seen: dict[Any, dict[Any, str]] = defaultdict(dict)
    for record in records:
        if record["origin"] == "real" and record.get(key) is not None and record.get("role"):
            side = SECTIONS[record["role"]] if value == "side" else record[value]
            seen[record[key]].setdefault(side, record["image"])
    broken = [(name, sides) for name, sides in seen.items() if len(sides) > 1]
    if broken:
        name, sides = broken[0]
        pairs = " and ".join(f"{image} ({side})" for side, image in sides.items())
        raise ValueError(f"{sentence}, but {key} {name!r} is in {pairs}; {len(broken)} such cases in all.")
