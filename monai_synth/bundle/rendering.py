"""Bundles from one template: the shipped ones and a user's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from ..data.phantom.catalog import CLASS_PHRASES, PHANTOM_SETS
from ..data.prompts import phrase_of, prompts_of
from ..utils.io import write_text

TEMPLATE = Path(__file__).resolve().parents[1] / "templates" / "bundle"
HE_PROMPT, GIEMSA_PROMPT = "H&E histopathology, {phrase}", "Giemsa blood smear, {phrase}"


@dataclass(frozen=True)
class BundleSpec:
    """All in which one bundle differs from another.

    Args:
        name: name of its folder.
        title: what it does, a phrase such as "Colon histopathology classification".
        subject: what its images show, a phrase such as "H&E tiles of the colon".
        prompts: what each class is called in a prompt, in the order of the labels.
        prompt_template: text around it, with the field {phrase}.
        dataset_dir: default data set; "phantom" draws images.
        phantom_set: which phantoms; a user's own bundle draws those of the colon when it is asked to.
        image_size: pixels.
        data_license: text on the licence of the data.
    """

    name: str
    title: str
    subject: str
    prompts: dict[str, str]
    prompt_template: str
    data_license: str
    dataset_dir: str = "phantom"
    phantom_set: str = "colon"
    image_size: int = 128

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of their labels."""
        return list(self.prompts)


LC25000 = """\
   Borkowski AA, Bui MM, Thomas LB, Wilson CP, DeLand LA, Mastorides SM.
   Lung and Colon Cancer Histopathological Image Dataset (LC25000). arXiv:1912.12142 [eess.IV], 2019.
   https://github.com/tampapath/lung_colon_image_set
   Free to use for AI research, by its authors' word."""
CELL_SETS = """\
   Matek C, Schwarz S, Marr C, Spiekermann K. A Single-cell Morphological Dataset of Leukocytes from AML Patients and
   Non-malignant Controls (AML-Cytomorphology_LMU). The Cancer Imaging Archive, 2019. CC BY 3.0.
   Acevedo A, Merino A, Alferez S, Molina A, Boldu L, Rodellar J. A dataset of microscopic peripheral blood cell images.
   Data in Brief, 2020. CC BY 4.0."""


def _shipped(name: str, title: str, subject: str, template: str, data_license: str) -> BundleSpec:
    prompts = {class_name: CLASS_PHRASES[class_name] for class_name in PHANTOM_SETS[name]}
    return BundleSpec(name, title, subject, prompts, template, data_license, phantom_set=name)


SHIPPED = {
    "colon": _shipped("colon", "Colon histopathology classification", "H&E tiles of the colon", HE_PROMPT, LC25000),
    "lung": _shipped("lung", "Lung histopathology classification", "H&E tiles of the lung", HE_PROMPT, LC25000),
    "wbc": _shipped("wbc", "White blood cell classification", "single cells of blood smears", GIEMSA_PROMPT, CELL_SETS),
}


def spec_of_folder(name: str, dataset_dir: str | Path, class_names: Sequence[str], prompt_template: str) -> BundleSpec:
    """The specification of a user's own bundle.

    Args:
        name: name of the bundle.
        dataset_dir: the user's images.
        class_names: their classes, in the order of their labels.
        prompt_template: text around the class's phrase.

    Raises:
        ValueError: when two classes would get the same prompt.
    """
    prompts_of(class_names, {}, prompt_template)
    return BundleSpec(
        name=name,
        title=f"{name.replace('_', ' ').capitalize()} classification",
        subject=f"images of {name.replace('_', ' ')}",
        prompts={class_name: phrase_of(class_name) for class_name in class_names},
        prompt_template=prompt_template,
        data_license=f"   {Path(dataset_dir).name}: state source and licence here before you share the bundle.",
        dataset_dir=str(Path(dataset_dir).resolve()),
    )


def rendered(spec: BundleSpec) -> dict[str, str]:
    """The text of every file of a bundle, by its path in the bundle."""
    files = {}
    for path in sorted(TEMPLATE.rglob("*")):
        if path.is_file():
            name, text = path.relative_to(TEMPLATE).as_posix(), path.read_text(encoding="utf-8")
            if name == "configs/metadata.json" or name.startswith("docs/"):
                text = Template(text).substitute(_words(spec))
            elif path.suffix == ".json":
                text = json.dumps(_with_settings(json.loads(text), spec), indent=4, ensure_ascii=False) + "\n"
            files[name] = text
    return files


def _with_settings(config: dict[str, Any], spec: BundleSpec) -> dict[str, Any]:
    values = {
        "prompts": spec.prompts,
        "prompt_template": spec.prompt_template,
        "phantom_set": spec.phantom_set,
        "image_size": spec.image_size,
    }
    if "output_dir" in config and "shots" in config:  # not inference.json, whose images are others
        values["dataset_dir"] = spec.dataset_dir
    config = {key: values.get(key, value) for key, value in config.items()}
    if "class_names" in config and "model_path" in config and "shots" not in config:
        names = repr(spec.class_names)
        config["class_names"] = f"$monai_synth.bundle.model_setting(@model_path, 'class_names', {names})"
    return config


def _words(spec: BundleSpec) -> dict[str, str]:
    draws = spec.dataset_dir == "phantom"
    own = "The user's own images, see docs/data_license.txt"  # whose path is nobody else's business
    return {
        "name": spec.name,
        "title": spec.title,
        "subject": spec.subject,
        "classes": ", ".join(spec.prompts.values()),
        "dataset_dir": spec.dataset_dir,
        "without_dataset_dir": "draws phantoms" if draws else f"uses the images in `{spec.dataset_dir}`",
        "data_source": f"{'Phantoms drawn by monai_synth' if draws else own} by default; others by --dataset_dir",
        "phantom_set": spec.phantom_set,
        "image_size": str(spec.image_size),
        "num_classes": str(len(spec.prompts)),
        "channel_def": json.dumps(dict(enumerate(spec.class_names)), ensure_ascii=False),
        "data_license": spec.data_license,
        "prompt_template": spec.prompt_template,
    }


def write_bundle(spec: BundleSpec, folder: str | Path) -> Path:
    """Writes a bundle, complete and runnable, and gives its folder.

    Raises:
        FileExistsError: when the folder exists; nothing is overwritten.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists. Name another folder, or remove that one.")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for name, text in rendered(spec).items():
        write_text(part / name, text)
    write_text(part / "models" / ".gitkeep", "")
    part.rename(folder)
    return folder
