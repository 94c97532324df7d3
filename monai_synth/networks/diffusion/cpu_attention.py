"""Attention of the denoiser on processors with fast bfloat16 products."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor


class CPUAttention:
    """diffusers' processors of attention, each where it is the faster one on a CPU in bfloat16.

    torch's fused attention is the faster one as long as no gradient is wanted; its backward pass takes several times as
    long as the four matrix products of the plain way. Up to rounding both give the same.
    """

    def __init__(self) -> None:
        self.fused, self.plain = AttnProcessor2_0(), AttnProcessor()

    def __call__(self, attn: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """
        Args:
            attn: the layer.
            hidden_states: shape (B, L, D).
            args: as the processors take them.
            kwargs: likewise.
        """
        processor = self.plain if torch.is_grad_enabled() else self.fused
        return processor(attn, hidden_states, *args, **kwargs)
