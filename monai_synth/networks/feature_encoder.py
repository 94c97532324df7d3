"""Encoders of images into features: the embedded one, or a network of timm, open_clip or transformers in a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, CLIPVisionModelWithProjection

from ..utils.io import read_json, sha256_of
from .checkpoints import EMBEDDED

COLORS = "+colors"  # behind an encoder's name
COLOR_STEPS, COLOR_WEIGHT = 8, 1.5  # of each channel; of the colors beside features of length 1
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class FeatureEncoder(nn.Module):
    """A frozen network that gives features of images in [0, 1], sized and normalized as the network was trained.

    Features of different encoders must never be compared; `fingerprint` tells them apart.

    Args:
        name: "nano" for the embedded encoder, or a folder in timm's `local-dir:` format (config.json and
            model.safetensors), open_clip's (open_clip_config.json and open_clip_model.safetensors) or transformers'
            (config.json, preprocessor_config.json and model.safetensors). With "+colors" behind, as in "nano+colors",
            the colors of an image stand beside its features (`with_colors`).

    Raises:
        FileNotFoundError: when there is no such folder, or a file is missing in it; nothing is downloaded.
        ValueError: when transformers has no vision model of the folder's kind, or weights are missing in the file.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        weights = encoder_weights(name)
        plain = name.removesuffix(COLORS)
        self.has_colors = plain != name
        self.name = name if plain in EMBEDDED else weights.parent.resolve().name + name[len(plain) :]
        self.fingerprint = encoder_fingerprint(name)
        self.network, self.size, mean, std = READERS[encoder_format(weights.parent)](weights.parent)
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
        x = x.clamp(0, 1)
        features = self.network((x - self.mean) / self.std).float()
        return with_colors(features, x) if self.has_colors else features


def color_histogram(x: Tensor, steps: int) -> Tensor:
    """How much of each image has which color: square roots of the shares, shape (B, steps^3), of length 1.

    Args:
        x: images of shape (B, 3, H, W), in [0, 1].
        steps: of each channel.
    """
    red, green, blue = (x * steps).long().clamp(max=steps - 1).flatten(2).unbind(1)
    codes, size = (red * steps + green) * steps + blue, steps**3
    images = torch.arange(len(x), device=x.device).view(-1, 1) * size
    counts = torch.bincount((codes + images).flatten(), minlength=len(x) * size)
    return (counts.view(len(x), size) / codes.shape[1]).sqrt()


def with_colors(features: Tensor, x: Tensor) -> Tensor:
    """Features of length 1 with the colors of the images beside them, scaled so that the mean square of an entry is 1.

    A small network that was trained to see through stains forgets what a stain says; beside its features colors say it,
    where all images come from one laboratory. Of images whose colors are a little off they say that above all.

    Args:
        features: of a network, shape (B, D).
        x: the images, shape (B, 3, H, W), in [0, 1].

    Returns:
        Shape (B, D + 512).
    """
    both = torch.cat([F.normalize(features), COLOR_WEIGHT * color_histogram(x, COLOR_STEPS)], dim=1)
    return both * (both.shape[1] / (1 + COLOR_WEIGHT**2)) ** 0.5


def encoder_weights(name: str) -> Path:
    """The weights of an encoder.

    Args:
        name: "nano" or a folder, as in `FeatureEncoder`.

    Raises:
        FileNotFoundError: when there is no such folder, or a file is missing in it.
    """
    name = name.removesuffix(COLORS)
    folder = EMBEDDED.get(name, Path(name))
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no encoder {name!r}: it is neither one of {sorted(EMBEDDED)} nor a folder with "
            "config.json and model.safetensors (timm, and transformers with preprocessor_config.json) or "
            "open_clip_config.json and open_clip_model.safetensors."
        )
    needed = [folder / file for file in FILES[encoder_format(folder)]]
    for path in needed:
        if not path.is_file():
            raise FileNotFoundError(f"The encoder {name!r} has no {path}. Only safetensors weights are read.")
    return needed[0]


FILES = {  # of each format, the weights first
    "timm": ("model.safetensors", "config.json"),
    "open_clip": ("open_clip_model.safetensors", "open_clip_config.json"),
    "transformers": ("model.safetensors", "config.json", "preprocessor_config.json"),
}


def encoder_format(folder: Path) -> str:
    """In whose format a folder's encoder is: "timm", "open_clip" or "transformers"."""
    if (folder / "open_clip_config.json").is_file():
        return "open_clip"
    config = folder / "config.json"
    return "transformers" if config.is_file() and "model_type" in read_json(config) else "timm"


def encoder_fingerprint(name: str) -> str:
    """What tells an encoder from every other one: a SHA-256 over its weights and colors, 64 hexadecimal digits."""
    text = sha256_of(encoder_weights(name))
    if name.endswith(COLORS):
        text += f"{COLORS} {COLOR_STEPS} {COLOR_WEIGHT}"
    return hashlib.sha256(text.encode()).hexdigest()


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


class _FirstToken(nn.Module):
    """The class token of a vision transformer of transformers, or the image embedding of its CLIP."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        found = self.model(pixel_values=x)
        embedding = getattr(found, "image_embeds", None)
        return found.last_hidden_state[:, 0] if embedding is None else embedding


def _transformers(folder: Path) -> tuple[Any, int, Any, Any]:
    kind = str(read_json(folder / "config.json")["model_type"])
    loader: Any = CLIPVisionModelWithProjection if kind.startswith("clip") else AutoModel
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
    try:
        model, found = loader.from_pretrained(folder, output_loading_info=True, **options)
    except (ValueError, KeyError) as error:
        raise ValueError(f"transformers cannot read the encoder in {folder} ({kind}): {error}") from error
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
    if missing or not hasattr(model.config, "patch_size"):
        what = f"lacks {missing[:3]}" if missing else f"is a {kind}, which is no vision transformer"
        raise ValueError(f"The encoder in {folder} {what}, so it gives no features of images.")
    settings = read_json(folder / "preprocessor_config.json")
    size: Any = settings["crop_size" if settings.get("do_center_crop", "crop_size" in settings) else "size"]
    size = size.get("height") or size["shortest_edge"] if isinstance(size, dict) else size
    return _FirstToken(model), int(size), settings["image_mean"], settings["image_std"]


READERS = {"timm": _timm, "open_clip": _open_clip, "transformers": _transformers}
