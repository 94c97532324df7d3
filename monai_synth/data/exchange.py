"""Synthetic images on their way to others: one archive whose every file can be verified."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from ..utils.io import PathLike, atomic_path, sha256_of
from .audits import LEAK, NOT_TESTED, audit_of
from .records import Record, class_names_of, load_datalist
from .synthetic_image import is_marked_synthetic

MANIFEST = "manifest.json"
FORMAT = "monai_synth package 1"
PRIVATE = ("image", "group", "role")  # keys of a record that do not travel
READ_FIRST = """Synthetic images, drawn by a generative model. Not for diagnosis.

{counts}

Images have no patients; what their generator was fine-tuned on does. Verdict on the images: {verdict}. {words}
Every file's SHA-256 stands in manifest.json; `python -m monai_synth import` verifies them.
Never put these images into a validation or a test set.
"""


def export_package(
    output_dir: PathLike, package: PathLike, policy: str = "standard", accept_leak: bool = False
) -> dict[str, Any]:
    """Writes the accepted synthetic images of a run as a zip, with manifest, verdicts and a text to read first.

    Args:
        output_dir: of the run.
        package: path of the zip.
        policy: filter that the images have passed; every one of them sorts out copies.
        accept_leak: export although the privacy audit found a leak in the images.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: when the run has not been filtered.
        ValueError: when the audit found a leak, an image is not the one that was filtered or is not marked synthetic.
    """
    folder = Path(output_dir)
    records, class_names, images = accepted_images(output_dir, policy, accept_leak)
    inside = [{**_travelling(record), "image": f"images/{_name(record)}"} for record in records]
    listing = {"class_names": class_names, "base_dir": ".", "training": inside, "validation": [], "test": []}
    counts = {name: sum(record["class_name"] == name for record in records) for name in class_names}
    texts = {
        "datalist.json": json.dumps(listing, indent=2, ensure_ascii=False) + "\n",
        "verdicts.json": json.dumps({"images": images}, indent=2, ensure_ascii=False) + "\n",
        "README.txt": READ_FIRST.format(
            counts=", ".join(f"{name}: {count}" for name, count in counts.items()), **images
        ),
    }
    if (folder / f"filter_{policy}" / "filter.json").is_file():
        texts["filter.json"] = (folder / f"filter_{policy}" / "filter.json").read_text(encoding="utf-8")
    files = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    files |= {entry["image"]: record["sha256"] for entry, record in zip(inside, records)}
    manifest = {"format": FORMAT, "verdict": images["verdict"], "images": counts, "sha256": files}
    with atomic_path(package) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, text in {MANIFEST: json.dumps(manifest, indent=2) + "\n", **texts}.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
        for entry, record in zip(inside, records):
            archive.writestr(zipfile.ZipInfo(entry["image"]), Path(record["image"]).read_bytes(), zipfile.ZIP_STORED)
    return manifest


def accepted_images(
    output_dir: PathLike, policy: str, accept_leak: bool
) -> tuple[list[Record], list[str], dict[str, str]]:
    """The synthetic images of a run that may leave it, its class names, and the audit's verdict on the images.

    Args:
        output_dir: of the run.
        policy: filter that the images have passed.
        accept_leak: give them although the privacy audit found a leak.

    Raises:
        FileNotFoundError: when the run has not been filtered.
        ValueError: when the audit found a leak, an image is not the one that was filtered or is not marked synthetic.
    """
    folder = Path(output_dir)
    datalist = folder / f"filter_{policy}" / "datalist.json"
    if policy == "none" or not datalist.is_file():
        raise FileNotFoundError(
            f"There is no {datalist}. Only images that a filter has passed are exported; run filter.json with "
            "--filter standard or copies first."
        )
    audit = audit_of(folder)
    untested = {"verdict": NOT_TESTED, "words": "Run privacy.json to have them tested."}
    images = audit["channels"]["images"] if audit else untested
    if images["verdict"] == LEAK and not accept_leak:
        raise ValueError(
            f"The privacy audit of {folder} says of the images: {LEAK}. {images['words']} They are not exported. "
            "Whoever may answer for it can add --export_although_leak_found."
        )
    records, class_names = load_datalist(datalist), class_names_of(datalist)
    for record in records:
        _check_image(record)
    if images["verdict"] not in (LEAK, NOT_TESTED):
        tested = {record["sha256"] for record in load_datalist(folder / "synthetic" / "datalist.json")}
        images = images if all(record["sha256"] in tested for record in records) else untested
    return records, class_names, images


def _name(record: Record) -> str:
    return PurePosixPath(record["class_name"], Path(record["image"]).name).as_posix()


def _travelling(record: Record) -> Record:
    return {key: value for key, value in record.items() if key not in PRIVATE}


def _check_image(record: Record) -> None:
    path = record["image"]
    if record.get("origin") != "synthetic":
        raise ValueError(f"{path} is {record.get('origin')!r} and not synthetic. Only synthetic images are exported.")
    if sha256_of(path) != record["sha256"]:
        raise ValueError(
            f"{path} is not the image that was drawn: its SHA-256 has changed. Remove it and draw it anew."
        )
    if not is_marked_synthetic(path):
        raise ValueError(f"{path} does not say in its metadata that it is synthetic. Remove it and draw it anew.")


def import_package(package: PathLike, folder: PathLike) -> dict[str, Any]:
    """Unpacks an archive of `export_package` after every file in it has been verified.

    Args:
        package: path of the zip.
        folder: made by this call; its `datalist.json` is what `--synthetic_datalist` of train.json takes.

    Returns:
        The manifest.

    Raises:
        FileExistsError: when the folder is there; nothing is overwritten.
        ValueError: when the archive is no package, or a file is missing, added, or other than the manifest says.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists. Name another folder, or remove that one.")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with zipfile.ZipFile(package) as archive:
            manifest = _verified_manifest(archive, package)
            for name in manifest["sha256"]:
                target = part / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
        for record in load_datalist(part / "datalist.json"):
            _check_image(record)
        part.rename(folder)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{package} is not a whole zip file: {error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _verified_manifest(archive: zipfile.ZipFile, package: PathLike) -> dict[str, Any]:
    names = set(archive.namelist())
    if MANIFEST not in names:
        raise ValueError(f"{package} has no {MANIFEST}; it is no package of `python -m monai_synth export`.")
    manifest = json.loads(archive.read(MANIFEST))
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{package} has the format {manifest.get('format')!r}; this version reads {FORMAT!r}.")
    listed = set(manifest["sha256"])
    unsafe = [name for name in names if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts]
    if unsafe:
        raise ValueError(f"{package} holds the path {unsafe[0]!r}, which would leave the folder. Nothing was unpacked.")
    differing = sorted((names - {MANIFEST}) ^ listed)
    if differing:
        raise ValueError(f"{package} and its manifest differ: {differing[0]!r} is in one of them alone.")
    for name, expected in manifest["sha256"].items():
        if hashlib.sha256(archive.read(name)).hexdigest() != expected:
            raise ValueError(f"{package} was changed: {name} is not what its manifest says. Nothing was unpacked.")
    return manifest
