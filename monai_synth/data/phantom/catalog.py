"""The phantom sets by name, their captions, and a folder of them that looks like any user's folder."""

from __future__ import annotations

import csv
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .cells import CELL_CLASSES, draw_cell
from .optics import Patient, draw_patient, render
from .tissue import TISSUE_CLASSES, draw_tissue

PHANTOM_SETS = {
    "colon": ("colon_aca", "colon_n"),
    "lung": ("lung_aca", "lung_n", "lung_scc"),
    "wbc": CELL_CLASSES,
}
CLASS_PHRASES = {
    "colon_aca": "colon adenocarcinoma",
    "colon_n": "benign colon tissue",
    "lung_aca": "lung adenocarcinoma",
    "lung_n": "benign lung tissue",
    "lung_scc": "lung squamous cell carcinoma",
    "neutrophil": "neutrophil",
    "lymphocyte": "lymphocyte",
    "monocyte": "monocyte",
    "eosinophil": "eosinophil",
    "basophil": "basophil",
    "erythroblast": "erythroblast",
    "immature_granulocyte": "immature granulocyte",
    "platelet": "platelet",
}


def stains_of(class_name: str) -> str:
    """The stain of a phantom class: "he" for tissue, "giemsa" for blood cells.

    Raises:
        ValueError: when there is no such phantom class.
    """
    if class_name in TISSUE_CLASSES:
        return "he"
    if class_name in CELL_CLASSES:
        return "giemsa"
    raise ValueError(f"There is no phantom class {class_name!r}. Choose one of {sorted(CLASS_PHRASES)}.")


def draw_phantom(class_name: str, seed: int, patient: Patient | None = None, size: int = 128) -> np.ndarray:
    """One phantom image, the same for the same arguments.

    Args:
        class_name: one of the names in `CLASS_PHRASES`.
        seed: decides the tissue or the cell and, without a patient, the patient as well.
        patient: stain, optics and camera; drawn from the seed when missing.
        size: side of the square image in pixels, 64 to 512.

    Returns:
        The image, shape (3, size, size), float32 in [0, 1].

    Raises:
        ValueError: for an unknown class or a size outside 64 to 512.
    """
    if not 64 <= size <= 512:
        raise ValueError(f"A phantom is 64 to 512 pixels wide, but size={size}.")
    stains = stains_of(class_name)
    patient = patient or draw_patient(stains, seed)
    rng = np.random.default_rng([seed, zlib.crc32(class_name.encode())])
    draw = draw_tissue if stains == "he" else draw_cell
    return render(draw(class_name, rng, patient, size), patient, rng)


def phantom_caption(class_name: str, patient: Patient | None = None, attributes: Sequence[str] = ()) -> str:
    """The prompt that goes with a phantom: what it shows, then the named attributes of its patient.

    Args:
        class_name: one of the names in `CLASS_PHRASES`.
        patient: whose attributes are told; needed when `attributes` is not empty.
        attributes: any of "strength", "hue", "background", "magnification".
    """
    stain = "H&E histopathology" if stains_of(class_name) == "he" else "Giemsa blood smear"
    words = {
        "strength": "{} stain",
        "hue": "{} hue",
        "background": "{} background",
        "magnification": "{} magnification",
    }
    parts = [f"{stain}, {CLASS_PHRASES[class_name]}"]
    if patient is not None:
        parts += [words[name].format(patient.attributes[name]) for name in attributes]
    return ", ".join(parts)


def write_phantoms(
    output_dir: str | Path,
    class_names: Sequence[str],
    images_per_class: int = 60,
    num_patients: int = 12,
    size: int = 128,
    seed: int = 0,
) -> Path:
    """A folder of phantom images with one sub-folder per class and a `groups.csv` that names the patient of each.

    Every patient has images of every class, as many of each as of the others up to one.

    Args:
        output_dir: is made when all images are drawn, and not before.
        class_names: names in `CLASS_PHRASES`.
        images_per_class: at least one for each patient.
        num_patients: who are simulated.
        size: side of the square images in pixels, 64 to 512.
        seed: decides patients and images.

    Raises:
        FileExistsError: when the output folder exists and is not empty.
        ValueError: when there are fewer images than patients, an unknown class or a size outside 64 to 512.
    """
    if images_per_class < num_patients:
        raise ValueError(
            f"images_per_class={images_per_class} is less than num_patients={num_patients}; "
            "each simulated patient needs an image of every class."
        )
    output_dir = Path(output_dir)
    place = output_dir.resolve()  # a link may lead to it
    if place.exists():
        if not place.is_dir() or any(place.iterdir()):
            raise FileExistsError(f"{output_dir} exists and is not an empty folder. Name another folder, or remove it.")
        place.rmdir()  # Windows puts no folder in the place of another, even of an empty one
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    rows = []
    for class_name in class_names:
        (part / class_name).mkdir(parents=True, exist_ok=True)
        patients = [draw_patient(stains_of(class_name), seed * 1000 + number) for number in range(num_patients)]
        for index in tqdm(range(images_per_class), desc=f"drawing {class_name}", unit="image"):
            number = index % num_patients
            image = draw_phantom(class_name, seed * 1_000_003 + index, patients[number], size)
            name = f"{class_name}/{class_name}_{index:05d}.png"
            Image.fromarray((image.transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)).save(part / name)
            rows.append((name, f"patient_{number:03d}"))
    with open(part / "groups.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "group"), *rows])
    os.replace(part, place)
    return output_dir
