"""Stains that vary from laboratory to laboratory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

# Optical density of red, green and blue light per stain: hematoxylin, eosin, and diaminobenzidine as the third axis.
HED_FROM_RGB = torch.linalg.inv(torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]]))
DARKEST = 1e-3  # transmitted light that is still told from black


class RandStainJitter(RandomizableTransform):
    """Scales and shifts the amount of each stain at random, in the space of optical densities.

    Args:
        prob: share of images that are changed.
        scale: largest relative change of a stain's amount.
        shift: largest absolute change of a stain's amount.

    Reference:
        Tellez et al., "Whole-Slide Mitosis Detection in H&E Breast Histology Using PHH3 as a Reference", 2018.

    Example:
        >>> jitter = RandStainJitter(prob=1.0).set_random_state(seed=0)
        >>> jitter(torch.rand(3, 32, 32)).shape
        torch.Size([3, 32, 32])
    """

    def __init__(self, prob: float = 0.8, scale: float = 0.15, shift: float = 0.03) -> None:
        super().__init__(prob)
        self.scale, self.shift = scale, shift
        self.factors, self.offsets = np.ones(3), np.zeros(3)

    def randomize(self, data: Any | None = None) -> None:
        super().randomize(None)
        self.factors = self.R.uniform(1 - self.scale, 1 + self.scale, 3)
        self.offsets = self.R.uniform(-self.shift, self.shift, 3)

    def __call__(self, image: Tensor, randomize: bool = True) -> Tensor:
        """Shape (3, H, W) from (3, H, W), both in [0, 1]."""
        if randomize:
            self.randomize()
        if not self._do_transform:
            return image
        return change_stains(image, torch.from_numpy(self.factors), torch.from_numpy(self.offsets))


def change_stains(image: Tensor, factors: Tensor, offsets: Tensor) -> Tensor:
    """The image with each stain's amount multiplied and shifted.

    Args:
        image: shape (3, H, W), in [0, 1].
        factors: shape (3,), 1 leaves a stain as it is.
        offsets: shape (3,), 0 leaves a stain as it is.

    Returns:
        Shape (3, H, W), in [0, 1].
    """
    matrix = HED_FROM_RGB.to(image)
    density = -image.clamp(min=DARKEST).log()
    amounts = torch.einsum("chw,cs->shw", density, matrix)
    changed = amounts * factors.to(image)[:, None, None] + offsets.to(image)[:, None, None]
    return torch.exp(-torch.einsum("shw,sc->chw", changed, torch.linalg.inv(matrix))).clamp(0, 1)


class RandStainJitterd(RandomizableTransform, MapTransform):
    """Dictionary version of `RandStainJitter`; all keys change alike."""

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.8,
        scale: float = 0.15,
        shift: float = 0.03,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, 1.0)
        self.jitter = RandStainJitter(prob, scale, shift)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandStainJitterd:
        super().set_random_state(seed, state)
        self.jitter.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.jitter.randomize()
        for key in self.key_iterator(result):
            result[key] = self.jitter(result[key], randomize=False)
        return result
