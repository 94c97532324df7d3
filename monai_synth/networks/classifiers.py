"""Image classifiers by name, with their color normalization inside."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

logger = logging.getLogger(__name__)


class ImageClassifier(nn.Module):
    """A timm network that takes images in [0, 1] and normalizes them itself, so that an export needs nothing else.

    Args:
        name: any name of `timm.list_models()`; built without a download.
        num_classes: number of classes, K.
        checkpoint: safetensors file of initial weights for the same architecture. Its head is left out when it has
            another number of classes. None starts from random weights.
        dropout: dropout rate before the head.

    Raises:
        ValueError: for an unknown name, or a checkpoint of another architecture.
        FileNotFoundError: when the checkpoint is missing.
    """

    def __init__(self, name: str, num_classes: int, checkpoint: str | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise ValueError(f"timm has no model {name!r}. timm.list_models() lists them all.")
        self.backbone: Any = timm.create_model(name, pretrained=False, num_classes=num_classes, drop_rate=dropout)
        config: Any = self.backbone.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config.get("mean", (0.5,) * 3)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config.get("std", (0.5,) * 3)).view(1, 3, 1, 1))
        if checkpoint:
            self._load(name, Path(checkpoint))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (B, K) for images of shape (B, 3, H, W) in [0, 1]."""
        return self.backbone((x - self.mean) / self.std)

    def _load(self, name: str, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"There is no checkpoint {path}. Name a safetensors file of {name}.")
        if path.suffix != ".safetensors":
            raise ValueError(f"{path} is not a safetensors file. Only safetensors are read; convert it first.")
        weights, own = load_file(path), self.backbone.state_dict()
        fitting = {key: value for key, value in weights.items() if key in own and own[key].shape == value.shape}
        missing = [key for key in own if key not in fitting]
        unfit = [key for key in missing if not key.startswith(self._head_names())]
        if unfit:
            raise ValueError(
                f"{path} does not fit {name}: {len(unfit)} of {len(own)} tensors are missing or have another shape, "
                f"the first is {unfit[0]}."
            )
        self.backbone.load_state_dict(fitting, strict=False)
        logger.info("Classifier %s starts from %s; its head is %s.", name, path.name, "new" if missing else "loaded")

    def _head_names(self) -> tuple[str, ...]:
        names = self.backbone.pretrained_cfg.get("classifier", "fc")
        return (names,) if isinstance(names, str) else tuple(names)
