"""The fine-tuning that the shipped train_diffusion.json builds, on images of the benchmark."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_synth.data import save_datalist
from monai_synth.handlers.progress import without_progress

from .timing import synchronize

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "bundles" / "colon" / "configs"


def shipped_setting(name: str) -> Any:
    """A setting of train_diffusion.json as it is shipped."""
    return ConfigParser.load_config_file(CONFIGS / "train_diffusion.json")[name]


def shipped_training(
    base: Path, device: torch.device, images: list[tuple[Path, str]], size: int, folder: Path, **changes: Any
) -> ConfigParser:
    """The parsed train_diffusion.json, whose "train::trainer" trains on given images and draws no grids of samples.

    Args:
        base: folder of the base model.
        device: where is trained.
        images: paths in class folders, with their prompts, which are the config's own.
        size: pixels.
        folder: for the adapter, its states and the datalist.
        changes: further settings of the config.
    """
    class_names = sorted({path.parent.name for path, _ in images})
    records = [
        {
            "image": str(path),
            "class_name": path.parent.name,
            "label": class_names.index(path.parent.name),
            "origin": "real",
            "role": "shots",
        }
        for path, _ in images
    ]
    save_datalist(folder / "datalist.json", records, class_names, images[0][0].parents[1])
    parser = ConfigParser(ConfigParser.load_config_file(CONFIGS / "train_diffusion.json"))
    paths = {"datalist_path": str(folder / "datalist.json"), "adapter_dir": str(folder)}
    settings = {"base_model": str(base), "device": str(device), "image_size": size, "sample_every": 0}
    parser.update({**paths, **settings, **changes})
    return parser


def train_as_shipped(
    base: Path, device: torch.device, images: list[tuple[Path, str]], size: int, folder: Path, **changes: Any
) -> float:
    """Trains an adapter into a folder and gives the seconds from the loaded base to the written file.

    They hold the encoding of the images and prompts and all handlers. For the arguments see `shipped_training`.
    """
    parser = shipped_training(base, device, images, size, folder, **changes)
    parser.get_parsed_content("diffusion")
    synchronize()
    start = time.perf_counter()
    with without_progress():
        parser.get_parsed_content("train::trainer").run()
    synchronize()
    return time.perf_counter() - start
