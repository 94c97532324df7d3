"""A frozen encoder whose training images vote for their classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .encoders import ImageEncoder


class NeighborClassifier(nn.Module):
    """A k-nearest-neighbor probe: the most similar training images vote for the class, the nearer the louder.

    A vote weighs exp(cosine / temperature) times the image's weight, in which a `RealSyntheticDataset` of images that
    are `seen_once` puts the shares that real and synthetic images have in any other training. Nothing is learnt:
    `remember` keeps the features of the training images, which `state_dict` holds. They describe these images: treat
    them as you treat the images.

    Args:
        name: of the encoder, see `ImageEncoder`.
        num_classes: number of classes, K.
        checkpoint: weights of the encoder. None is random.
        neighbors: how many images vote.
        temperature: of the votes.
        image_size: pixels of the images; None takes the size that the encoder was published with.
        memory_size: images that are remembered already, N; their features come with `load_state_dict`.

    Reference:
        Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", 2018, section 3.4, whose
        temperature is the default. https://arxiv.org/abs/1805.01978
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        checkpoint: str | None = None,
        neighbors: int = 20,
        temperature: float = 0.07,
        image_size: int | None = None,
        memory_size: int = 0,
    ) -> None:
        super().__init__()
        if neighbors < 1 or temperature <= 0:
            raise ValueError(
                f"neighbors is {neighbors}, temperature {temperature}; they must be at least 1 and above 0."
            )
        self.encoder = ImageEncoder(name, checkpoint, image_size).requires_grad_(False)
        self.neighbors, self.temperature = neighbors, temperature
        self.register_buffer("features", torch.zeros(memory_size, self.encoder.feature_size))
        self.register_buffer("votes", torch.zeros(memory_size, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logarithms of the classes' shares of the votes, shape (B, K), for images of shape (B, 3, H, W) in [0, 1]."""
        count = min(self.neighbors, self.features.shape[0])
        if count == 0:
            raise RuntimeError("The nearest-neighbor classifier remembers no images yet. Run train.json first.")
        similarity = nn.functional.normalize(self.encoder(x), dim=-1) @ self.features.t()
        nearest, index = similarity.topk(count, dim=-1)
        loudness = ((nearest - nearest[:, :1]) / self.temperature).exp()
        votes = (loudness.unsqueeze(-1) * self.votes[index]).sum(dim=1)
        return (votes / votes.sum(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(min=1e-6).log()

    def train(self, mode: bool = True) -> NeighborClassifier:
        """Sets the mode; the encoder always evaluates."""
        super().train(mode)
        self.encoder.eval()
        return self

    def remember(self, features: Tensor, label: Tensor, weight: Tensor) -> None:
        """Adds training images to those that vote.

        Args:
            features: from `encoder`, shape (B, D).
            label: shape (B,), whole numbers.
            weight: of each image, shape (B,).
        """
        features = nn.functional.normalize(features.detach().float(), dim=-1).to(self.features)
        votes = nn.functional.one_hot(label.long(), self.votes.shape[1]).to(self.votes) * weight.to(self.votes)[:, None]
        self.features, self.votes = torch.cat([self.features, features]), torch.cat([self.votes, votes])

    def forget(self) -> None:
        """Empties the memory."""
        self.features, self.votes = self.features[:0], self.votes[:0]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        for name in ("features", "votes"):  # the memory takes the size that the file has
            value = state_dict.get(prefix + name)
            if value is not None and value.shape[1:] == getattr(self, name).shape[1:]:
                setattr(self, name, getattr(self, name).new_zeros(value.shape))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def describe(self) -> dict[str, Any]:
        """What `published_classifier` needs to build this network again."""
        return {
            "family": "neighbors",
            "name": self.encoder.name,
            "neighbors": self.neighbors,
            "temperature": self.temperature,
            "memory_size": self.features.shape[0],
        }
