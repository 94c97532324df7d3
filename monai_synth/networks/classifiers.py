"""Image classifiers by name, with their color normalization inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .checkpoints import initial_weights, published_colors
from .encoders import ImageEncoder, build_timm, load_timm, timm_colors


class ImageClassifier(nn.Module):
    """A timm network that takes images in [0, 1] and normalizes them itself, so that an export needs nothing else.

    Args:
        name: any name of `timm.list_models()`; built without a download.
        num_classes: number of classes, K.
        checkpoint: initial weights of the same architecture, see `find_weights`. A head of another number of classes
            is left out. "auto" takes the embedded weights of regnetx_002 and nothing for others; None starts from
            random weights.
        dropout: dropout rate before the head.
        image_size: pixels of the images; None takes the size that the network was published with. Networks without
            windows or position embeddings take any size.

    Raises:
        ValueError: for an unknown name, a checkpoint of another architecture, or a size that the network cannot take.
        FileNotFoundError: when the checkpoint is missing.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        checkpoint: str | None = None,
        dropout: float = 0.0,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.backbone: Any = build_timm(name, num_classes, image_size, dropout)
        checkpoint = initial_weights(name, checkpoint)
        mean, std = published_colors(checkpoint) or timm_colors(self.backbone)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        if checkpoint:
            load_timm(self.backbone, name, checkpoint)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (B, K) for images of shape (B, 3, H, W) in [0, 1]."""
        return self.backbone((x - self.mean) / self.std)

    def describe(self) -> dict[str, Any]:
        """What `published_classifier` needs to build this network again."""
        return {"family": "timm", "name": self.name}


class EncoderClassifier(nn.Module):
    """An image encoder with a linear head: fine-tuned as a whole, or with the encoder frozen as a linear probe.

    Args:
        name: of the encoder, see `ImageEncoder`; "open_clip:ViT-B-32" is the image tower of CLIP.
        num_classes: number of classes, K.
        checkpoint: initial weights of the encoder; the head is always new. None starts from random weights.
        frozen: train the head alone; the encoder, its batch statistics too, stays as it is.
        image_size: pixels of the images; None takes the size that the encoder was published with.

    Raises:
        ValueError: as `ImageEncoder` does.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        checkpoint: str | None = None,
        frozen: bool = False,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = ImageEncoder(name, checkpoint, image_size)
        self.head = nn.Linear(self.encoder.feature_size, num_classes)
        self.frozen = frozen
        self.encoder.requires_grad_(not frozen)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (B, K) for images of shape (B, 3, H, W) in [0, 1]."""
        return self.head(self.encoder(x))

    def train(self, mode: bool = True) -> EncoderClassifier:
        """Sets the mode; a frozen encoder always evaluates."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def describe(self) -> dict[str, Any]:
        """What `published_classifier` needs to build this network again."""
        return {"family": "linear", "name": self.encoder.name}
