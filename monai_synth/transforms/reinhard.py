"""Synthetic images in the colors of real ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from ..utils.seeds import derived_seed
from .tile import LoadTile

LMS_FROM_RGB = torch.tensor(
    [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]], dtype=torch.float64
)
AXES = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, -2.0], [1.0, -1.0, 0.0]], dtype=torch.float64)
LAB_FROM_LOG_LMS = AXES / AXES.norm(dim=1, keepdim=True)
DARKEST = 1 / 255


def to_lab(image: Tensor) -> Tensor:
    """An image's lightness, yellow-blue and red-green, shape (3, H, W), float64, from RGB in [0, 1].

    Reference:
        Ruderman et al., "Statistics of Cone Responses to Natural Images", 1998; constants of Reinhard et al., 2001.
    """
    cones = torch.einsum("ij,jhw->ihw", LMS_FROM_RGB, image.double().clamp(min=DARKEST))
    return torch.einsum("ij,jhw->ihw", LAB_FROM_LOG_LMS, cones.log10())


def from_lab(values: Tensor) -> Tensor:
    """RGB in [0, 1], shape (3, H, W), from the result of `to_lab`."""
    cones = 10 ** torch.einsum("ij,jhw->ihw", torch.linalg.inv(LAB_FROM_LOG_LMS), values)
    return torch.einsum("ij,jhw->ihw", torch.linalg.inv(LMS_FROM_RGB), cones).clamp(0, 1)


def color_statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of an image's three color axes, shape (3, 1, 1) each.

    Args:
        image: shape (3, H, W), in [0, 1].
    """
    values = to_lab(image)
    return values.mean(dim=(1, 2), keepdim=True), values.std(dim=(1, 2), keepdim=True)


def match_colors(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The image with another's mean and spread of color, shape (3, H, W), in [0, 1].

    Args:
        image: shape (3, H, W), in [0, 1].
        mean: of the other, see `color_statistics`.
        std: of the other.

    Reference:
        Reinhard et al., "Color Transfer between Images", IEEE Computer Graphics and Applications, 2001, equation 11.
    """
    values = to_lab(image)
    own_mean, own_std = values.mean(dim=(1, 2), keepdim=True), values.std(dim=(1, 2), keepdim=True)
    return from_lab((values - own_mean) * std / own_std.clamp(min=1e-6) + mean).to(image.dtype)


class MatchColorsd(MapTransform):
    """Gives every synthetic image the colors of a shot of its class; real images stay as they are.

    A generator that has seen a few images draws stains and backgrounds that vary more than the real ones do, and a
    classifier that learns from them must look past color. Which shot serves follows from the image's path, so the same
    image always looks the same.

    Args:
        keys: of the images; the record's "origin", "class_name" and "image_path" say what they are.
        references: records of the shots; an empty list changes nothing.
        allow_missing_keys: pass over records without the key.
    """

    def __init__(
        self, keys: KeysCollection, references: Sequence[Mapping[str, Any]] = (), allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        load = LoadTile()
        self.statistics: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for record in references:
            self.statistics[record["class_name"]].append(color_statistics(load(record["image"])))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        known = self.statistics.get(str(result.get("class_name")))
        if not known or result.get("origin") != "synthetic":
            return result
        mean, std = known[derived_seed("color", str(result["image_path"]).rsplit("/", 1)[-1]) % len(known)]
        for key in self.key_iterator(result):
            result[key] = match_colors(result[key], mean, std)
        return result
