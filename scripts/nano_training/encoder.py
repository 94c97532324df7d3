"""The nano encoder: a small timm network that tells phantoms apart whatever their stain, and knows their colors too."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.loss import LabelSmoothingCrossEntropy
from torch import Tensor, nn

from monai_synth.networks.feature_encoder import color_histogram
from monai_synth.utils.io import write_json
from monai_synth.utils.tensors import save_safetensors

from .loop import train, trained
from .phantoms import CLASS_NAMES, IMAGE_SIZE, Phantoms, recolor

logger = logging.getLogger(__name__)
ARCHITECTURE = "regnetx_002"
TEMPERATURE = 0.2
COLORS = 4  # steps of each channel in the color histograms


def build_encoder() -> nn.Module:
    """The network whose pooled features, (B, 368), are the encoder's; images in [-1, 1]."""
    return timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0)


def build_heads(width: int) -> nn.ModuleDict:
    """What is trained with the encoder and then left out: a classifier of phantoms, a projection, and colors."""
    project = nn.Sequential(nn.Linear(width, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 128))
    classes, colors = nn.Linear(width, len(CLASS_NAMES)), nn.Linear(width, COLORS**3)
    return nn.ModuleDict({"classes": classes, "project": project, "colors": colors})


def views(images: Tensor, rng: np.random.Generator, generator: torch.Generator) -> Tensor:
    """The images under another frame, turn, focus and noise, shape (B, 3, 128, 128), in [0, 1].

    Args:
        images: shape (B, 3, 128, 128), in [0, 1].
        rng: source of what is the same for the batch: window, turn and blur.
        generator: source of what differs between images.
    """
    side = int(rng.integers(72, IMAGE_SIZE + 1))
    top, left = rng.integers(IMAGE_SIZE - side + 1, size=2)
    images = images[:, :, top : top + side, left : left + side]
    images = F.interpolate(images, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True, align_corners=False)
    images = torch.rot90(images, int(rng.integers(4)), (2, 3))
    images = images.flip(3) if rng.random() < 0.5 else images
    if rng.random() < 0.5:
        coarse = int(rng.integers(48, IMAGE_SIZE))
        images = F.interpolate(images, (coarse, coarse), mode="bilinear", antialias=True, align_corners=False)
        images = F.interpolate(images, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False)
    source = {"generator": generator, "device": images.device}
    noise = 0.04 * torch.rand(len(images), 1, 1, 1, **source)
    return (images + noise * torch.randn(images.shape, **source)).clamp(0, 1)


def stains(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The images twice under another light and stain: one half in nearly the same, one half in two quite different.

    Which of two views belong together is then told by the tissue, and by its color where that can be trusted.

    Args:
        images: shape (B, 3, H, W), in [0, 1].
        generator: source of the draw.
    """
    near = recolor(images, generator, spread=2.0)
    first, second = recolor(near, generator, spread=0.3), recolor(near, generator, spread=0.3)
    half = torch.arange(len(images), device=images.device).view(-1, 1, 1, 1) % 2 == 0
    return first, torch.where(half, second, recolor(images, generator, spread=2.0))


def contrast(a: Tensor, b: Tensor) -> Tensor:
    """The NT-Xent loss of two views of the same images, features of shape (B, D) each.

    Reference:
        Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, equation 1.
    """
    both = F.normalize(torch.cat([a, b]), dim=1)
    scores = (both @ both.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(both)).roll(len(a))
    return F.cross_entropy(scores, partner.to(scores.device))


def train_encoder(work_dir: Path, steps: int, batch_size: int, device: torch.device) -> None:
    """Trains the encoder: the class of each phantom, which two views show the same one, and the colors of each view."""
    phantoms = Phantoms(work_dir, device)
    labels = torch.tensor([CLASS_NAMES.index(row["class_name"]) for row in phantoms.rows], device=device)
    encoder = build_encoder().to(device)
    heads = build_heads(encoder.num_features).to(device)
    smooth = LabelSmoothingCrossEntropy(0.1)

    def loss_of(step: int) -> dict[str, Tensor]:
        rng, generator = np.random.default_rng([3, step]), torch.Generator(device).manual_seed(step)
        indices = rng.integers(len(phantoms), size=batch_size)
        images, truth = phantoms.batch(indices), labels[torch.from_numpy(indices).to(device)]
        first, second = stains(images, generator)
        pair = torch.cat([views(first, rng, generator), views(second, rng, generator)])
        histograms = color_histogram(pair, COLORS)
        with torch.autocast(device.type, torch.bfloat16):
            features = encoder(pair * 2 - 1)
            said = heads["classes"](features).float()
            colors = heads["colors"](features).float()
            one, other = heads["project"](features).float().chunk(2)
        supervised, own = smooth(said, truth.repeat(2)), contrast(one, other)
        colored = 1 - F.cosine_similarity(colors, histograms).mean()
        right = (said.argmax(dim=1) == truth.repeat(2)).float().mean()
        parts = {"supervised": supervised, "contrast": own, "colors": colored, "accuracy": right}
        return {"loss": supervised + 0.5 * own + 2 * colored, **parts}

    train(work_dir, "encoder", {"encoder": encoder, "heads": heads}, loss_of, steps, 2e-3, 0.998)


def export_encoder(work_dir: Path, output_dir: Path) -> None:
    """Writes the encoder as timm's `local-dir:` reads it, in half precision."""
    encoder = build_encoder()
    trained(work_dir, "encoder", {"encoder": encoder, "heads": build_heads(encoder.num_features)}, average=False)
    weights = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in encoder.state_dict().items()
    }
    save_safetensors(output_dir / "model.safetensors", weights, {"format": "pt"})
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": 0,
        "num_features": encoder.num_features,
        "pretrained_cfg": {
            "input_size": [3, IMAGE_SIZE, IMAGE_SIZE],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": 0,
            "classifier": encoder.pretrained_cfg["classifier"],
            "first_conv": encoder.pretrained_cfg["first_conv"],
            "license": "apache-2.0",
        },
    }
    write_json(output_dir / "config.json", config)
    logger.info("Wrote the nano encoder to %s.", output_dir)
