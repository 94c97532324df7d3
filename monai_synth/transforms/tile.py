"""From a file to a square tile."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from torch import Tensor

from ..data.images import read_image


class LoadTile(Transform):
    """Reads an image file as a plain tensor; see `monai_synth.data.read_image` for what it copes with.

    Example:
        >>> LoadTile()("tile.png").shape
        torch.Size([3, 224, 224])
    """

    def __call__(self, path: str | Path) -> Tensor:
        """Shape (3, H, W), float32 in [0, 1]."""
        return torch.from_numpy(read_image(path))


class LoadTiled(MapTransform):
    """Dictionary version of `LoadTile`; the path is replaced by the image and kept under "<key>_path".

    Example:
        >>> LoadTiled("image")({"image": "tile.png", "label": 0})["image"].shape
        torch.Size([3, 224, 224])
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.load = LoadTile()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[f"{key}_path"] = str(result[key])
            result[key] = self.load(result[key])
        return result


class ResizeCrop(Transform):
    """Resizes the shorter side to a size and cuts the middle square out.

    Args:
        size: side of the result in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Tensor) -> Tensor:
        """Shape (3, size, size) from (3, H, W), in [0, 1] as before."""
        height, width = image.shape[-2:]
        scale = self.size / min(height, width)
        shape = (max(self.size, round(height * scale)), max(self.size, round(width * scale)))
        if shape != (height, width):
            image = F.interpolate(image[None], shape, mode="bicubic", antialias=True, align_corners=False)[0].clamp(
                0, 1
            )
        top, left = (shape[0] - self.size) // 2, (shape[1] - self.size) // 2
        return image[:, top : top + self.size, left : left + self.size]


class ResizeCropd(MapTransform):
    """Dictionary version of `ResizeCrop`."""

    def __init__(self, keys: KeysCollection, size: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.resize = ResizeCrop(size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.resize(result[key])
        return result
