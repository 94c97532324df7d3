"""Training images mixed in pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..utils.tensors import moved
from .prepare_batch import ClassificationPrepareBatch, Device


class MixingPrepareBatch(ClassificationPrepareBatch):
    """Images mixed in pairs by MixUp or CutMix, with the shares of their classes as the target.

    Args:
        method: "mixup" or "cutmix".
        num_classes: number of classes, K.
        alpha: both parameters of the beta distribution that a batch's share is drawn from.
        across: mix real with synthetic images too; else each kind is mixed within itself.

    Raises:
        ValueError: for another method, or an alpha that is not positive.

    Reference:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018; Yun et al., "CutMix: Regularization Strategy to
        Train Strong Classifiers with Localizable Features", 2019.
    """

    def __init__(self, method: str, num_classes: int, alpha: float = 0.4, across: bool = False) -> None:
        if method not in ("mixup", "cutmix"):
            raise ValueError(f"method is {method!r}. It can be 'mixup' or 'cutmix'.")
        if alpha <= 0:
            raise ValueError(f"alpha is {alpha}; it must be above 0.")
        self.method, self.num_classes, self.alpha, self.across = method, num_classes, alpha, across

    def __call__(
        self, batchdata: dict[str, Any], device: Device = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `ClassificationPrepareBatch`, with "origin" (B,) in the batch; the label has the shape (B, K)."""
        image, target = super().__call__(batchdata, device, non_blocking, **kwargs)
        partner = torch.arange(len(image))
        for kind in [None] if self.across else ["real", "synthetic"]:
            rows = [place for place, origin in enumerate(batchdata["origin"]) if kind in (None, origin)]
            partner[rows] = partner[rows].roll(1)
        partner = moved(partner, image.device, non_blocking)
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        label = torch.nn.functional.one_hot(target["label"].long(), self.num_classes).float()
        weight = target["weight"].float()
        if self.method == "mixup":
            mixed = share * image + (1 - share) * image[partner]
        else:
            mixed, share = pasted(image, image[partner], share)
        # Each part keeps the weight that its own image has.
        own, other = share * weight[:, None] * label, (1 - share) * weight[partner][:, None] * label[partner]
        total = (own + other).sum(dim=1)
        return mixed, {"label": (own + other) / total.clamp(min=1e-12)[:, None], "weight": total}


def pasted(image: Tensor, other: Tensor, share: float) -> tuple[Tensor, float]:
    """Images with one rectangle of others in them, and the share of each image that is left.

    Args:
        image: shape (B, 3, H, W).
        other: of the same shape.
        share: that shall be left, 0 to 1; a rectangle at the edge is cut and leaves more.
    """
    height, width = image.shape[-2:]
    tall, wide = round(height * (1 - share) ** 0.5), round(width * (1 - share) ** 0.5)
    row, column = int(torch.randint(height, ())), int(torch.randint(width, ()))
    top, bottom = max(0, row - tall // 2), min(height, row - tall // 2 + tall)
    left, right = max(0, column - wide // 2), min(width, column - wide // 2 + wide)
    mixed = image.clone()
    mixed[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)
