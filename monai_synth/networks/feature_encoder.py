"""Encoders of images into features: the embedded one, a timm network in a folder, or an open_clip one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.io import read_json, sha256_of
from .checkpoints import EMBEDDED

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class FeatureEncoder(nn.Module):
    """A frozen network that gives features of images in [0, 1], sized and normalized as the network was trained.

    Features of different encoders must never be compared; `fingerprint` tells them apart.

    Args:
        name: "nano" for the embedded encoder, or a folder in timm's `local-dir:` format (config.json and
            model.safetensors) or open_clip's (open_clip_config.json and open_clip_model.safetensors).

    Raises:
        FileNotFoundError: when there is no such folder, or a file is missing in it; nothing is downloaded.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        weights = encoder_weights(name)
        clip = weights.name == "open_clip_model.safetensors"
        self.name = name if name in EMBEDDED else weights.parent.resolve().name
        self.fingerprint = encoder_fingerprint(name)
        self.network, self.size, mean, std = _open_clip(weights.parent) if clip else _timm(weights.parent)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.mean: Tensor
        self.std: Tensor
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FeatureEncoder:
        """Stays in evaluation mode, whatever an engine asks."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of shape (B, D) for images of shape (B, 3, H, W) in [0, 1]."""
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False)
        return self.network((x.clamp(0, 1) - self.mean) / self.std).float()


def encoder_weights(name: str) -> Path:
    """The weights of an encoder.

    Args:
        name: "nano" or a folder, as in `FeatureEncoder`.

    Raises:
        FileNotFoundError: when there is no such folder, or a file is missing in it.
    """
    folder = EMBEDDED.get(name, Path(name))
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no encoder {name!r}: it is neither one of {sorted(EMBEDDED)} nor a folder with "
            "config.json and model.safetensors (timm) or open_clip_config.json and open_clip_model.safetensors."
        )
    clip = (folder / "open_clip_config.json").is_file()
    weights = folder / ("open_clip_model.safetensors" if clip else "model.safetensors")
    for path in (weights, folder / ("open_clip_config.json" if clip else "config.json")):
        if not path.is_file():
            raise FileNotFoundError(f"The encoder {name!r} has no {path}. Only safetensors weights are read.")
    return weights


def encoder_fingerprint(name: str) -> str:
    """What tells an encoder from every other one: a SHA-256 over its weights, 64 hexadecimal digits."""
    return hashlib.sha256(sha256_of(encoder_weights(name)).encode()).hexdigest()


def _timm(folder: Path) -> tuple[Any, int, Any, Any]:
    network: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    config = network.pretrained_cfg
    return network, int(config["input_size"][-1]), config["mean"], config["std"]


def _open_clip(folder: Path) -> tuple[Any, int, Any, Any]:
    import open_clip

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    preprocess = read_json(folder / "open_clip_config.json").get("preprocess_cfg", {})
    size = model.visual.image_size
    size = size[0] if isinstance(size, (tuple, list)) else size
    return model.visual, int(size), preprocess.get("mean", CLIP_MEAN), preprocess.get("std", CLIP_STD)
