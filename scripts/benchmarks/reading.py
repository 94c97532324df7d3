"""Images per second of a classifier with its data loading, of scanning, and of features."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.data import Dataset
from monai.transforms import Compose
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from monai_synth.data import scan
from monai_synth.data.images import look_at
from monai_synth.data.synthetic_image import FORMATS, write_synthetic_image
from monai_synth.networks import FeatureEncoder, ImageClassifier
from monai_synth.transforms import LoadTile, LoadTiled, RandStainJitterd, ResizeCrop, ResizeCropd, UntrackedCompose
from monai_synth.utils import sha256_of

from .timing import in_turns, markdown

BATCH = 32
TRAIN = Path(__file__).resolve().parents[2] / "bundles" / "colon" / "configs" / "train.json"


def classifier_step(name: str, size: int, device: torch.device, channels_last: bool) -> Callable[[torch.Tensor], None]:
    """A forward and backward pass."""
    network = ImageClassifier(name, 2, image_size=size).to(device).train()
    if not channels_last:
        network = network.to(memory_format=torch.contiguous_format)
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def step(images: torch.Tensor) -> None:
        images = images.to(device).to(memory_format=layout)
        torch.nn.functional.cross_entropy(
            network(images), torch.zeros(len(images), dtype=torch.long, device=device)
        ).backward()

    return step


def benchmark_reading(
    paths: list[Path], folder: Path, classifier: str, size: int, device: torch.device, repeats: int
) -> str:
    """The table: images per second of ours beside what a script of the works does.

    Args:
        paths: images to train a classifier on.
        folder: class folders with the same images, to be scanned.
        classifier: timm's name.
        size: pixels.
        device: where the classifier lies.
        repeats: rounds of the timing.
    """
    theirs = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(15),
            transforms.ColorJitter(0.2, 0.2, 0.2, 0.02),
            transforms.ToTensor(),
        ]
    )
    ours = transforms.Compose([LoadTiled("image"), ResizeCropd("image", size), RandStainJitterd("image")])
    few = paths[: 2 * BATCH]
    plain_step, own_step = (classifier_step(classifier, size, device, flag) for flag in (False, True))

    def plain_training() -> None:
        data = [theirs(Image.open(path).convert("RGB")) for path in few]
        for start in range(0, len(few), BATCH):
            plain_step(torch.stack(data[start : start + BATCH]))

    def own_training() -> None:
        dataset = Dataset([{"image": str(path)} for path in few], ours)
        for batch in DataLoader(dataset, batch_size=BATCH):
            own_step(batch["image"].as_subclass(torch.Tensor))

    config = ConfigParser(ConfigParser.load_config_file(TRAIN))
    augmentations = config.get_parsed_content("train::random_transforms")
    arrays = [{"image": ResizeCrop(size)(LoadTile()(path))} for path in few]

    def augmenting(compose: type[Compose]) -> None:
        transform = compose(augmentations)
        for image in arrays:
            transform(dict(image))

    encoder, load, resize = FeatureEncoder("nano"), LoadTile(), ResizeCrop(size)

    def features() -> None:
        for start in range(0, len(few), BATCH):
            encoder(torch.stack([resize(load(path)) for path in few[start : start + BATCH]]))

    large = [torch.nn.functional.interpolate(load(path)[None], (512, 512), mode="bicubic")[0] for path in paths[:8]]

    def writing(suffix: str) -> None:
        with tempfile.TemporaryDirectory() as name:
            for number, image in enumerate(large):
                write_synthetic_image(Path(name, f"{number}.{suffix}"), image)

    def plain_reading() -> None:
        for path in paths:
            Image.open(path).convert("RGB")
            sha256_of(path)

    ways = {
        "classifier, torchvision's transforms": (plain_training, len(few)),
        "classifier, ours": (own_training, len(few)),
        "train.json's augmentations, MONAI's Compose": (partial(augmenting, Compose), len(few)),
        "train.json's augmentations, without metadata": (partial(augmenting, UntrackedCompose), len(few)),
        "opening and hashing files one by one": (plain_reading, len(paths)),
        "hashing files' pixels, one thread": (lambda: [look_at(path) for path in paths] and None, len(paths)),
        "scan: files, pixels, sizes, groups (near-duplicates not looked for)": (
            lambda: scan(folder, find_duplicates=False) and None,
            len(paths),
        ),
        "features of the nano encoder": (features, len(few)),
        **{f"writing 512 pixels as {name}": (partial(writing, name), len(large)) for name in FORMATS},
    }
    for way, _ in ways.values():
        way()
    seconds = in_turns({name: way for name, (way, _) in ways.items()}, repeats)
    rows = [[name, f"{ways[name][1] / value:.0f}"] for name, value in seconds.items()]
    return markdown("Reading, classifying, hashing", ["what", "images/s"], rows)
