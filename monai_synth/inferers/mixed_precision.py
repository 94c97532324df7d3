"""Networks that compute in half precision while their weights stay in float32."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn


class MixedPrecisionInferer(SimpleInferer):
    """Runs a network under torch's autocast, on the CPU as on a GPU, and gives its results in float32.

    The amp of MONAI's trainers is for GPUs alone.

    Args:
        dtype: "bfloat16", whose range needs no scaled gradients; None computes in float32.

    Raises:
        ValueError: for another precision.

    Reference:
        Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019. https://arxiv.org/abs/1905.12322
    """

    def __init__(self, dtype: str | None = None) -> None:
        super().__init__()
        if dtype not in (None, "bfloat16"):
            raise ValueError(f"The precision is {dtype!r}. It can be 'bfloat16', or null for float32.")
        self.dtype = dtype

    def __call__(  # type: ignore[override]  # a network is a module
        self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Tensor:
        """What the network gives for a batch of shape (B, ...), in float32."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.dtype is not None):
            result = network(inputs, *args, **kwargs)
        return result.float()
