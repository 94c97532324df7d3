"""Images and prompts as a diffusion model sees them, computed once where nothing random comes before."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, Transform
from torch import Tensor

from ..inferers.halving import HalvingInferer
from ..networks.diffusion import LatentDiffusion
from .views import NUM_VIEWS, dihedral_views


class EncodeLatent(Transform):
    """Mean and standard deviation of an image's scaled latent for each of its 8 flips and quarter turns.

    It is deterministic, so a `CacheDataset` runs the autoencoder once; `RandLatentView` still draws a fresh latent at
    every step. Where the memory of a GPU does not suffice for all views at once, they are encoded in halves.

    Args:
        diffusion: whose autoencoder is used.
    """

    def __init__(self, diffusion: LatentDiffusion) -> None:
        self.diffusion = diffusion
        self.halving = HalvingInferer()

    def __call__(self, image: Tensor) -> Tensor:
        """Shape (2, 8, c, h, w), mean first, from an image of shape (3, H, W) in [0, 1].

        Raises:
            torch.OutOfMemoryError: when the memory is too small for one view.
        """
        views = dihedral_views(image)
        encode = self.diffusion.encode
        posteriors = self.halving.in_halves(lambda part: torch.stack(encode(views[part]), dim=1).float(), len(views))
        return posteriors.transpose(0, 1).contiguous().cpu()


class EncodeLatentd(MapTransform):
    """Dictionary version of `EncodeLatent`; the image is replaced."""

    def __init__(self, keys: KeysCollection, diffusion: LatentDiffusion, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.encode = EncodeLatent(diffusion)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.encode(result[key])
        return result


class RandLatentView(Randomizable, Transform):
    """A latent drawn from the posterior of one of the 8 views of an image, chosen at random."""

    def __call__(self, posterior: Tensor) -> Tensor:
        """Shape (c, h, w) from the result of `EncodeLatent`, shape (2, 8, c, h, w)."""
        mean, std = posterior[:, int(self.R.randint(NUM_VIEWS))]
        noise = torch.from_numpy(self.R.standard_normal(mean.shape)).to(mean.dtype)
        return mean + std * noise


class RandLatentViewd(Randomizable, MapTransform):
    """Dictionary version of `RandLatentView`."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.view = RandLatentView()

    def set_random_state(self, seed: int | None = None, state: Any = None) -> RandLatentViewd:
        super().set_random_state(seed, state)
        self.view.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.view(result[key])
        return result


class EncodePromptd(MapTransform):
    """Replaces a prompt by its text features, "features" of shape (L, D) and what else the base's family has, or by its
    token ids, each of shape (L,).

    Args:
        keys: of the prompts.
        diffusion: whose text encoders are used.
        token_ids: give token ids, for text encoders that are trained.
        allow_missing_keys: pass over records without the key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        diffusion: LatentDiffusion,
        token_ids: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.diffusion, self.token_ids = diffusion, token_ids

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        encode = self.diffusion.token_ids if self.token_ids else self.diffusion.encode_prompts
        for key in self.key_iterator(result):
            result[key] = {name: value[0].cpu() for name, value in encode([result[key]]).items()}
        return result
