"""Which real images a generator has learned from, noted beside its images, so that they judge nothing made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..utils.io import PathLike, read_json, write_json
from .records import JUDGES, Record

NOTE = "fitted_on.json"
EXTERNAL = "external/"  # how the groups of another data set begin


def write_fitted_images(folder: PathLike, learned: Sequence[Record], records: Sequence[Record]) -> None:
    """Notes what a generator has learned from: images by the SHA-256 of their files and of their pixels, and groups by
    that of their names.

    Args:
        folder: of the synthetic images' datalist.
        learned: the real images that it was fitted on or that its images begin on; none for a base alone.
        records: all real images of the data set; those of the same groups are noted as well.
    """
    groups = {record["group"] for record in learned}
    members = [record for record in records if record["group"] in groups]
    images = {record["sha256"] for record in members}
    pixels = {record["pixels"] for record in members if "pixels" in record}  # earlier versions did not note them
    content = {"images": sorted(images), "pixels": sorted(pixels), "groups": sorted(map(_digest, groups))}
    write_json(Path(folder) / NOTE, content)


def judges_among_fitted(note: Mapping[str, Any], records: Sequence[Record]) -> list[Record]:
    """The real images of the roles val, test and external that a generator has learned, or whose group it has.

    An image is known by its file or, saved anew, by its pixels. Names of groups count between data sets that share
    images; elsewhere two patients may have one name.

    Args:
        note: content of a `fitted_on.json`.
        records: of a datalist.
    """
    images, pixels, groups = set(note["images"]), set(note.get("pixels", [])), set(note["groups"])

    def is_learned(record: Record) -> bool:
        return record["sha256"] in images or record.get("pixels") in pixels

    found = []
    for is_external in (False, True):
        members = [record for record in records if (record["role"] == "external") == is_external]
        known = groups if any(map(is_learned, members)) else set()
        for record in members:
            group = _digest(record["group"].removeprefix(EXTERNAL) if is_external else record["group"])
            if record["role"] in JUDGES and (is_learned(record) or group in known):
                found.append(record)
    return found


def check_fitted_images(synthetic_datalist: PathLike, records: Sequence[Record]) -> None:
    """Checks that what the generator of synthetic images has learned, where that is known, judges nothing.

    Args:
        synthetic_datalist: path of their datalist, with the note beside it.
        records: of the real images of the run that trains with them.

    Raises:
        ValueError: when an image that judges, or its group, was learned; names how many.
    """
    path = Path(synthetic_datalist).parent / NOTE
    if not path.is_file():
        return  # see `unchecked`
    found = judges_among_fitted(read_json(path), records)
    if found:
        counts = {role: sum(record["role"] == role for record in found) for role in JUDGES}
        raise ValueError(
            f"{len(found)} real images that judge here ({', '.join(f'{n} {role}' for role, n in counts.items() if n)}) "
            f"are among those that the generator of {synthetic_datalist} has learned, or of the same patients or "
            f"slides, as {path} says; the first is {found[0]['image']}. A classifier that is trained on its images "
            "would be judged on what they were made of. Take the seed, fold, shots and groups of the run that drew "
            "them, or draw images of this run by leaving out --synthetic_datalist."
        )


def unchecked(synthetic_datalist: PathLike) -> str | None:
    """What a reader has to know of synthetic images without the note beside their datalist; None with it."""
    if (Path(synthetic_datalist).parent / NOTE).is_file():
        return None
    return (
        f"It could not be checked whether the generator of {synthetic_datalist} has learned images that judge here: "
        f"there is no {NOTE} beside it, as for packages of `export`, adapters from elsewhere and images of earlier "
        "versions."
    )


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
