"""Images per second of a classifier's training with its data loading, of scanning, and of features."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from monai.data import Dataset
from monai.transforms import Compose
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms

from monai_synth.data import scan
from monai_synth.data.images import look_at
from monai_synth.data.synthetic_image import FORMATS, write_synthetic_image
from monai_synth.networks import FeatureEncoder, ImageClassifier
from monai_synth.transforms import LoadTile, LoadTiled, ResizeCrop, ResizeCropd, UntrackedCompose
from monai_synth.utils import sha256_of

from .shipped import CONFIGS
from .timing import in_turns, markdown

BATCH = 32
Ways = dict[str, tuple[Callable[[], object], int]]  # what is timed, and its images


def open_plainly(path: Path) -> Image.Image:
    """An image file as scripts open it."""
    with Image.open(path) as image:
        return image.convert("RGB")


def torchvision_transforms(entries: list[dict[str, Any]], size: int) -> transforms.Compose:
    """What torchvision has in the place of train.json's augmentations, for an image of PIL.

    A jitter of colors stands for that of stains, and what a turn leaves empty stays black, where MONAI reflects.

    Args:
        entries: `train::random_transforms` of the config, not parsed.
        size: pixels.
    """
    known = {entry["_target_"].rsplit(".", 1)[-1]: entry for entry in entries}
    flip, turn, affine, stain = (
        known[name] for name in ("RandFlipd", "RandRotate90d", "RandAffined", "RandStainJitterd")
    )
    turns = [transforms.RandomRotation((90 * number, 90 * number)) for number in range(1, turn["max_k"] + 1)]
    moved = transforms.RandomAffine(
        math.degrees(affine["rotate_range"]),
        translate=(affine["translate_range"] / size,) * 2,
        scale=(1 - affine["scale_range"], 1 + affine["scale_range"]),
        interpolation=transforms.InterpolationMode.BILINEAR,
    )
    colors = transforms.ColorJitter(stain["scale"], stain["scale"], stain["scale"], stain["shift"])
    return transforms.Compose(
        [
            transforms.Resize(size),
            transforms.CenterCrop(size),
            transforms.RandomVerticalFlip(flip["prob"]),  # MONAI's axis 0 of an image is its height
            transforms.RandomApply([transforms.RandomChoice(turns)], turn["prob"]),
            transforms.RandomApply([moved], affine["prob"]),
            transforms.RandomApply([colors], stain["prob"]),
            transforms.ToTensor(),
        ]
    )


def training_step(name: str, size: int, device: torch.device, channels_last: bool) -> Callable[[Tensor], None]:
    """A step of a classifier's training: forward, backward, AdamW.

    Args:
        name: timm's.
        size: pixels.
        device: where it lies.
        channels_last: as ours is; else as timm gives it.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network: Any = ImageClassifier(name, 2, image_size=size).to(device).train()
    network = network.to(memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step(images: Tensor) -> None:
        labels = torch.zeros(len(images), dtype=torch.long, device=device)
        F.cross_entropy(network(images.to(device, memory_format=layout)), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def classifier_ways(paths: list[Path], classifier: str, size: int, device: torch.device) -> Ways:
    """A training with train.json's augmentations beside the same with torchvision's, and what metadata cost.

    Colors are matched in neither: torchvision has nothing in its place.
    """
    size = min(size, int(timm.get_pretrained_cfg(classifier).input_size[-1]))
    parser = ConfigParser(ConfigParser.load_config_file(CONFIGS / "train.json"))
    augmentations = parser.get_parsed_content("train::random_transforms")
    theirs = torchvision_transforms(parser["train"]["random_transforms"], size)
    ours = UntrackedCompose([LoadTiled("image"), ResizeCropd("image", size), *augmentations])
    plain_step, own_step = (training_step(classifier, size, device, flag) for flag in (False, True))

    def plain_training() -> None:
        for start in range(0, len(paths), BATCH):
            plain_step(torch.stack([theirs(open_plainly(path)) for path in paths[start : start + BATCH]]))

    def own_training() -> None:
        dataset = Dataset([{"image": str(path)} for path in paths], ours)
        for batch in DataLoader(dataset, batch_size=BATCH):
            own_step(batch["image"])

    arrays = [{"image": ResizeCrop(size)(LoadTile()(path))} for path in paths]

    def augmenting(compose: type[Compose]) -> None:
        transform = compose(augmentations)
        for image in arrays:
            transform(dict(image))

    return {
        f"{classifier}, {size} pixels, torchvision's transforms nearest to train.json's": (plain_training, len(paths)),
        f"{classifier}, {size} pixels, ours with train.json's": (own_training, len(paths)),
        f"train.json's augmentations, {size} pixels, MONAI's Compose": (partial(augmenting, Compose), len(paths)),
        f"train.json's augmentations, {size} pixels, without metadata": (
            partial(augmenting, UntrackedCompose),
            len(paths),
        ),
    }


def feature_ways(paths: list[Path], device: torch.device) -> Ways:
    """Features of the nano encoder in float32: one image after another as scripts do, and ours in batches."""
    encoder = FeatureEncoder("nano").to(device)
    load, resize = LoadTile(), ResizeCrop(encoder.size)
    plain = transforms.Compose([transforms.Resize(encoder.size), transforms.CenterCrop(encoder.size)])
    to_tensor = transforms.ToTensor()

    def one_by_one() -> None:
        for path in paths:
            encoder(to_tensor(plain(open_plainly(path)))[None].to(device)).cpu()

    def in_batches() -> None:
        for start in range(0, len(paths), BATCH):
            encoder(torch.stack([resize(load(path)) for path in paths[start : start + BATCH]]).to(device)).cpu()

    return {
        "features, PIL and torchvision, one image at a time": (one_by_one, len(paths)),
        f"features, ours, {BATCH} at a time": (in_batches, len(paths)),
    }


def file_ways(paths: list[Path], folder: Path) -> Ways:
    """Reading, hashing and writing files."""
    large = [F.interpolate(LoadTile()(path)[None], (512, 512), mode="bicubic")[0] for path in paths[:8]]

    def plain_reading() -> None:
        for path in paths:
            open_plainly(path)
            sha256_of(path)

    def writing(suffix: str) -> None:
        with tempfile.TemporaryDirectory() as name:
            for number, image in enumerate(large):
                write_synthetic_image(Path(name, f"{number}.{suffix}"), image)

    return {
        "opening and hashing files one by one": (plain_reading, len(paths)),
        "hashing files' pixels, one thread": (lambda: [look_at(path) for path in paths], len(paths)),
        "scan: files, pixels, sizes, groups (near-duplicates not looked for)": (
            lambda: scan(folder, find_duplicates=False),
            len(paths),
        ),
        **{f"writing 512 pixels as {name}": (partial(writing, name), len(large)) for name in FORMATS},
    }


def benchmark_reading(
    paths: list[Path], folder: Path, classifiers: Sequence[str], size: int, device: torch.device, repeats: int
) -> str:
    """The table: images per second of ours beside what a script of the works does.

    Args:
        paths: images to train a classifier on.
        folder: class folders with the same images, to be scanned.
        classifiers: timm's names; each sees images of the size it was published with, or smaller ones.
        size: pixels.
        device: where the classifiers and the encoder lie.
        repeats: rounds of the timing.
    """
    few = paths[: 2 * BATCH]
    ways = {
        **{what: way for name in classifiers for what, way in classifier_ways(few, name, size, device).items()},
        **feature_ways(few, device),
        **file_ways(paths, folder),
    }
    for way, _ in ways.values():
        way()
    seconds = in_turns({name: way for name, (way, _) in ways.items()}, repeats)
    rows = [[name, f"{ways[name][1] / median(values):.0f}"] for name, values in seconds.items()]
    return markdown("Reading, classifying, hashing", ["what", "images/s"], rows)
