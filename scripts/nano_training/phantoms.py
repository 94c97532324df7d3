"""Phantoms to train on: drawn once into shards, read in batches, changed at random."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from monai_synth.data.phantom import CLASS_PHRASES, draw_patient, draw_phantom
from monai_synth.data.phantom.catalog import stains_of
from monai_synth.utils.io import atomic_path, read_json, write_json

CLASS_NAMES = tuple(CLASS_PHRASES)
IMAGE_SIZE = 128


def draw_shard(arguments: tuple[Path, int, int]) -> None:
    """Draws one shard: `count` phantoms of every class, each of a patient of its own, with the patients' attributes."""
    path, shard, count = arguments
    if path.with_suffix(".json").exists():
        return
    torch.set_num_threads(1)
    images, rows = [], []
    for label, class_name in enumerate(CLASS_NAMES):
        for index in range(count):
            seed = (shard * len(CLASS_NAMES) + label) * count + index + 10_000_000
            variety = (0.7, 1.0, 1.5, 2.2)[index % 4]
            patient = draw_patient(stains_of(class_name), seed, variety)
            image = draw_phantom(class_name, seed, patient, IMAGE_SIZE)
            images.append((image * 255 + 0.5).astype(np.uint8))
            rows.append({"class_name": class_name, **patient.attributes})
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.stack(images))
    write_json(path.with_suffix(".json"), rows)


def draw_data(work_dir: Path, num_shards: int, count: int, workers: int) -> None:
    """Draws the phantom shards that are still missing."""
    (work_dir / "data").mkdir(parents=True, exist_ok=True)
    jobs = [(work_dir / "data" / f"shard_{shard:03d}.npy", shard, count) for shard in range(num_shards)]
    with ProcessPoolExecutor(workers) as pool:
        list(tqdm(pool.map(draw_shard, jobs), total=len(jobs), desc="phantom shards"))


def complete_shards(work_dir: Path) -> list[Path]:
    """The shards that are drawn to their end.

    Raises:
        FileNotFoundError: when there is none.
    """
    shards = sorted(path.with_suffix(".npy") for path in (work_dir / "data").glob("shard_*.json"))
    if not shards:
        raise FileNotFoundError(f"There are no phantoms in {work_dir / 'data'}. Run the stage 'data' first.")
    return shards


def read_rows(work_dir: Path) -> list[dict[str, str]]:
    """Class and attributes of every phantom, in the order of the shards."""
    return [row for path in complete_shards(work_dir) for row in read_json(path.with_suffix(".json"))]


class Phantoms:
    """All shards that are complete, as one array of images with their attributes.

    Args:
        work_dir: folder in which `draw_data` wrote.
        device: that holds them: a GPU learns faster than images can be sent to it.
    """

    def __init__(self, work_dir: Path, device: torch.device) -> None:
        self.shards, self.rows = complete_shards(work_dir), read_rows(work_dir)
        self.images = torch.cat([torch.from_numpy(np.load(path)).to(device) for path in self.shards])
        self.size = len(self.rows) // len(self.shards)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray) -> Tensor:
        """Images at the indices, shape (B, 3, H, W), float32 in [0, 1]."""
        return self.images[torch.from_numpy(indices).to(self.images.device)].float() / 255


def recolor(images: Tensor, generator: torch.Generator, spread: float = 1.0) -> Tensor:
    """The images under another light, stain and camera: a random color matrix, strength and saturation for each.

    Args:
        images: shape (B, 3, H, W), in [0, 1].
        generator: source of the draw.
        spread: width of the draw.
    """
    batch, source = images.shape[0], {"generator": generator, "device": images.device}
    density = -torch.log(images.clamp(1 / 255, 1.0))
    mix = torch.eye(3, device=images.device) + 0.12 * spread * torch.randn(batch, 3, 3, **source)
    scale = torch.exp(0.25 * spread * torch.randn(batch, 1, 1, 1, **source))
    shift = 0.06 * spread * torch.randn(batch, 3, 1, 1, **source)
    colored = torch.exp(-(torch.einsum("bij,bjhw->bihw", mix, density) * scale + shift)).clamp(0, 1)
    saturation = torch.exp(0.35 * spread * torch.randn(batch, 1, 1, 1, **source))
    grey = colored.mean(dim=1, keepdim=True)
    return (grey + saturation * (colored - grey)).clamp(0, 1)


def crops(phantoms: Phantoms, rng: np.random.Generator, generator: torch.Generator, batch: int, size: int) -> Tensor:
    """Random windows of random phantoms, turned, flipped, zoomed and recolored, shape (B, 3, size, size)."""
    images = phantoms.batch(rng.integers(len(phantoms), size=batch))
    side = int(rng.integers(size // 2, IMAGE_SIZE + 1)) if rng.random() < 0.5 else size
    top, left = rng.integers(IMAGE_SIZE - side + 1, size=2)
    images = images[:, :, top : top + side, left : left + side]
    if side != size:
        images = F.interpolate(images, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    images = torch.rot90(images, int(rng.integers(4)), (2, 3))
    keep = torch.rand(batch, 1, 1, 1, generator=generator, device=images.device) < 0.3
    return torch.where(keep, images, recolor(images, generator, spread=2.0))


def any_color(images: Tensor, generator: torch.Generator) -> Tensor:
    """The images in colors that no phantom has: channels mixed at random, each with a gain and an offset of its own.

    Args:
        images: shape (B, 3, H, W), in [0, 1].
        generator: source of the draw.
    """
    batch, source = images.shape[0], {"generator": generator, "device": images.device}
    mix = torch.softmax(2.0 * torch.randn(batch, 3, 3, **source), dim=2)
    gain = 0.4 + 0.6 * torch.rand(batch, 3, 1, 1, **source)
    offset = (1.0 - gain) * torch.rand(batch, 3, 1, 1, **source)
    return (torch.einsum("bij,bjhw->bihw", mix, images) * gain + offset).clamp(0, 1)


def rich_windows(phantoms: Phantoms, seed: list[int], batch: int, size: int) -> Tensor:
    """Windows with more fine detail and more colors than phantoms have, as tissue has, shape (B, 3, size, size).

    Half of them are seen from twice as far, a third in any color, half are sharpened and half are grainy.

    Args:
        phantoms: of which they are.
        seed: of the draw.
        batch: number of windows.
        size: their side in pixels, at most half that of a phantom.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator(phantoms.images.device).manual_seed(seed[-1])
    source, one = {"generator": generator, "device": phantoms.images.device}, (batch, 1, 1, 1)
    near = crops(phantoms, rng, generator, batch=batch - batch // 2, size=size)
    far = F.avg_pool2d(crops(phantoms, rng, generator, batch=batch // 2, size=2 * size), 2)
    images = torch.cat([near, far])[torch.randperm(batch, **source)]
    images[: batch // 3] = any_color(images[: batch // 3], generator)
    blurred = F.avg_pool2d(F.pad(images, (1,) * 4, mode="reflect"), 3, 1)
    amount = 2.5 * torch.rand(one, **source) * (torch.rand(one, **source) < 0.5)
    images = images + amount * (images - blurred)
    strength = 0.12 * torch.rand(one, **source) * (torch.rand(one, **source) < 0.5)
    fine = 0.5 * torch.randn(batch, 3, size, size, **source) + torch.randn(batch, 1, size, size, **source)
    coarse = F.interpolate(torch.randn(batch, 1, size // 2, size // 2, **source), scale_factor=2, mode="bicubic")
    return (images + strength * (0.5 * fine + coarse)).clamp(0, 1)
