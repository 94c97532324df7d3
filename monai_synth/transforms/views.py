"""The eight flips and quarter turns of an image, under which a tile of tissue or a cell stays what it is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

NUM_VIEWS = 8


def dihedral_views(image: Tensor) -> Tensor:
    """The 8 flips and quarter turns of a square image, shape (8, C, H, W) from (C, H, W); the first is the image."""
    turns = [torch.rot90(image, quarter, (-2, -1)) for quarter in range(4)]
    return torch.stack([*turns, *(turn.flip(-1) for turn in turns)])


class SelectViewd(MapTransform):
    """The view of an image that the record asks for by its number; the image itself when it asks for none.

    Args:
        keys: of the images, shape (C, H, H).
        view_key: of the number, 0 to 7.
        allow_missing_keys: whether a record may lack a key.

    Example:
        >>> SelectViewd("image")({"image": torch.rand(3, 64, 64), "view": 2})["image"].shape
        torch.Size([3, 64, 64])
    """

    def __init__(self, keys: KeysCollection, view_key: str = "view", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.view_key = view_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        number = int(result.get(self.view_key, 0))
        for key in self.key_iterator(result):
            if number:
                result[key] = dihedral_views(result[key])[number]
        return result
