"""Losses in which every image has a weight."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class DenoisingLoss(nn.Module):
    """Squared error of a denoiser, each image with its weight."""

    def forward(self, prediction: Tensor, target: dict[str, Tensor]) -> Tensor:
        """Mean over the batch.

        Args:
            prediction: shape (B, c, h, w).
            target: "target" of the same shape and "weight" of shape (B,).
        """
        error = (prediction.float() - target["target"].float()).square().flatten(1).mean(dim=1)
        return (target["weight"] * error).mean()


class WeightedCrossEntropy(nn.Module):
    """Cross entropy, each image with its weight.

    Args:
        label_smoothing: share of the target that is spread over all classes, 0 to 1.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: dict[str, Tensor]) -> Tensor:
        """Mean over the batch.

        Args:
            logits: shape (B, K).
            target: "label" (B,), 0 to K - 1, or shares of the classes, (B, K), and "weight" (B,).
        """
        label = target["label"].long() if target["label"].ndim == 1 else target["label"].float()
        each = F.cross_entropy(logits.float(), label, reduction="none", label_smoothing=self.label_smoothing)
        return (target["weight"] * each).mean()
