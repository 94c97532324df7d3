"""Stain normalization after Macenko, for tiles that may be white."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from torch import Tensor

logger = logging.getLogger(__name__)

METHODS = ("none", "macenko")
# Optical density of red, green and blue per unit of hematoxylin and eosin (Ruifrok and Johnston, 2001), and the amounts
# that a dense pixel gets. The reference of the method's first published code turns tissue brown.
REFERENCE = torch.nn.functional.normalize(
    torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]], dtype=torch.float64), dim=1
)
REFERENCE_AMOUNTS = torch.tensor([1.6, 0.9], dtype=torch.float64)
LIGHT = 240 / 255  # transmitted light of an empty slide
TISSUE_DENSITY = 0.15  # optical density (natural logarithm) of tissue, mean of the channels: blue slides absorb no blue
FILL = 10 / 255  # brightest channel of what was not scanned
FEWEST_TISSUE = 0.05  # share of tissue below which a tile's stains cannot be told
SMALLEST_ANGLE = 0.12  # radians between the two stains, below which there is but one


def optical_density(image: Tensor) -> Tensor:
    """Optical density of each pixel, shape (3, H, W), float64, from an image of the same shape in [0, 1]."""
    return -(image.double().clamp(1 / 255, LIGHT) / LIGHT).log()


def tissue_share(image: Tensor) -> float:
    """The share of an image's pixels that are tissue, 0 to 1.

    Empty slide is none, and neither is black, with which scanners and readers fill what was not scanned; JPEG leaves
    that a few grey levels off. Real tissue is not as dark (a test on tiles of colon and lung).

    Args:
        image: shape (3, H, W), in [0, 1].
    """
    is_dense = optical_density(image).mean(dim=0) > TISSUE_DENSITY
    return float((is_dense & (image.amax(dim=0) > FILL)).double().mean())


def stain_matrix(density: Tensor, alpha: float = 1.0) -> Tensor | None:
    """The optical density of hematoxylin and eosin in an image, unit rows of shape (2, 3), hematoxylin first.

    The two stains are the extreme directions of the tissue's optical densities within their plane. Hematoxylin is the
    one that absorbs more red light for the green that it absorbs.

    Args:
        density: optical densities, shape (3, H, W).
        alpha: percentile of directions that are passed over at either end.

    Returns:
        None when there is too little tissue or only one stain.

    Reference:
        Macenko et al., "A Method for Normalizing Histology Slides for Quantitative Analysis", ISBI 2009.
    """
    pixels = density.flatten(1)
    tissue = pixels[:, pixels.mean(dim=0) > TISSUE_DENSITY]
    if tissue.shape[1] < FEWEST_TISSUE * pixels.shape[1]:
        return None
    plane = torch.linalg.eigh(torch.cov(tissue)).eigenvectors[:, 1:]  # of the two largest eigenvalues
    plane = plane * torch.where(plane.sum(dim=0) < 0, -1.0, 1.0)  # light is only absorbed
    along, across = plane.T @ tissue
    angles = torch.atan2(across, along)[:: max(1, tissue.shape[1] // 10**5)]
    low, high = torch.quantile(angles, torch.tensor([alpha / 100, 1 - alpha / 100], dtype=torch.float64))
    if high - low < SMALLEST_ANGLE:
        return None
    stains = torch.stack([plane @ torch.stack([angle.cos(), angle.sin()]) for angle in (low, high)]).clamp(min=0)
    stains = stains / stains.norm(dim=1, keepdim=True)
    return stains if stains[0, 0] * stains[1, 1] > stains[1, 0] * stains[0, 1] else stains.flip(0)


def normalize_stain(image: Tensor) -> Tensor | None:
    """The image with the reference's stains in the place of its own; None where its stains cannot be told.

    Args:
        image: shape (3, H, W), in [0, 1].

    Returns:
        Shape (3, H, W), in [0, 1].
    """
    density = optical_density(image)
    stains = stain_matrix(density)
    if stains is None:
        return None
    amounts = torch.linalg.lstsq(stains.T, density.flatten(1)).solution.clamp(min=0)
    dense = torch.quantile(amounts[:, :: max(1, amounts.shape[1] // 10**5)], 0.99, dim=1)
    if dense.min() <= 0:
        return None
    scaled = amounts * (REFERENCE_AMOUNTS / dense)[:, None]
    return (LIGHT * torch.exp(-REFERENCE.T @ scaled)).clamp(0, 1).view_as(image).to(image.dtype)


class NormalizeStain(Transform):
    """Gives every tile the stains of one reference, so that laboratories look alike; MONAI's own swaps the two stains.

    A tile with less than 5 % tissue, or with one stain only, stays as it is, and the first such tile is logged.

    Args:
        method: "macenko", or "none", which changes nothing.

    Raises:
        ValueError: for an unknown method.

    Example:
        >>> NormalizeStain("macenko")(torch.ones(3, 32, 32)).min()
        tensor(1.)
    """

    def __init__(self, method: str = "macenko") -> None:
        if method not in METHODS:
            raise ValueError(f"normalize_stain is {method!r}. It can be {' or '.join(map(repr, METHODS))}.")
        self.method = method
        self.told = False

    def __call__(self, image: Tensor) -> Tensor:
        """Shape (3, H, W) from (3, H, W), both in [0, 1]."""
        if self.method == "none":
            return image
        normalized = normalize_stain(image)
        if normalized is None and not self.told:
            self.told = True
            logger.warning("A tile has too little tissue or only one stain and stays as it is; so do others like it.")
        return image if normalized is None else normalized


class NormalizeStaind(MapTransform):
    """Dictionary version of `NormalizeStain`."""

    def __init__(self, keys: KeysCollection, method: str = "macenko", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.normalize = NormalizeStain(method)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.normalize(result[key])
        return result
