"""Colors, compression and augmentation policies, with MONAI's random state."""

from __future__ import annotations

import io
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

POLICIES = {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment}


class RandHSVJitterd(RandomizableTransform, MapTransform):
    """Changes hue, saturation and brightness at random, as another camera or light would; all keys alike.

    Args:
        keys: of images of shape (3, H, W), in [0, 1].
        prob: share of images that are changed.
        hue: largest change of the hue, as a part of the circle, 0 to 0.5.
        saturation: largest relative change of the saturation, 0 to 1.
        value: largest relative change of the brightness, 0 to 1.
        allow_missing_keys: whether a record may lack a key.

    Raises:
        ValueError: for a change out of its range.

    Reference:
        Tellez et al., "Quantifying the effects of data augmentation and stain color normalization in convolutional
        neural networks for computational pathology", 2019, section 3.2.

    Example:
        >>> jitter = RandHSVJitterd("image", prob=1.0).set_random_state(seed=0)
        >>> jitter({"image": torch.rand(3, 32, 32)})["image"].shape
        torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        hue: float = 0.05,
        saturation: float = 0.3,
        value: float = 0.2,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if not (0 <= hue <= 0.5 and 0 <= saturation <= 1 and 0 <= value <= 1):
            raise ValueError(
                f"hue is {hue}, saturation {saturation}, value {value}. Hue may be 0 to 0.5, the others 0 to 1."
            )
        self.hue, self.saturation, self.value = hue, saturation, value

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize(None)
        turn, color, light = self.R.uniform(-1, 1, 3) * (self.hue, self.saturation, self.value)
        for key in self.key_iterator(result) if self._do_transform else ():
            image = functional.adjust_hue(result[key], float(turn))
            image = functional.adjust_saturation(image, float(1 + color))
            result[key] = functional.adjust_brightness(image, float(1 + light)).clamp(0, 1)
        return result


class RandJPEGd(RandomizableTransform, MapTransform):
    """Compresses images as JPEG at a random quality and reads them back; all keys alike.

    Args:
        keys: of images of shape (3, H, W), in [0, 1].
        prob: share of images that are changed.
        quality: lowest and highest quality, 1 to 100.
        allow_missing_keys: whether a record may lack a key.

    Raises:
        ValueError: for a quality out of its range.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.3,
        quality: tuple[int, int] = (40, 95),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if not 1 <= quality[0] <= quality[1] <= 100:
            raise ValueError(f"quality is {tuple(quality)}. It must be a lowest and a highest value from 1 to 100.")
        self.quality = quality

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize(None)
        quality = int(self.R.randint(self.quality[0], self.quality[1] + 1))
        for key in self.key_iterator(result) if self._do_transform else ():
            result[key] = compressed(result[key], quality)
        return result


def compressed(image: Tensor, quality: int) -> Tensor:
    """What a JPEG file of an image holds, shape (3, H, W), in [0, 1]."""
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as read:
        values = np.asarray(read, dtype=np.float32) / 255
    return torch.from_numpy(values.transpose(2, 0, 1).copy()).to(image)


class RandPolicyd(RandomizableTransform, MapTransform):
    """TrivialAugment or RandAugment of torchvision, drawn by MONAI's random state; all keys alike.

    Args:
        keys: of images of shape (3, H, W), in [0, 1].
        policy: "trivial" or "rand".
        prob: share of images that are changed.
        allow_missing_keys: whether a record may lack a key.

    Raises:
        ValueError: for another policy.

    Reference:
        Mueller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", 2021; Cubuk et al.,
        "RandAugment: Practical automated data augmentation with a reduced search space", 2019.
    """

    def __init__(
        self, keys: KeysCollection, policy: str = "trivial", prob: float = 1.0, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if policy not in POLICIES:
            raise ValueError(f"policy is {policy!r}. It can be {', '.join(map(repr, POLICIES))}.")
        self.augment = POLICIES[policy](fill=1.0)  # white, as the glass beside the tissue is

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize(None)
        seed = int(self.R.randint(2**31 - 1))
        for key in self.key_iterator(result) if self._do_transform else ():
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                result[key] = self.augment(torch.as_tensor(result[key])).clamp(0, 1)
        return result
