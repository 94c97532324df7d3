"""Attention of the denoiser on processors with fast bfloat16 products."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor

LONGEST = 1024  # tokens: a side of 32 latent cells


class CPUAttention:
    """diffusers' processors of attention, each where it is the faster one on a CPU in bfloat16.

    torch's fused attention is the faster one as long as no gradient is wanted. For short sequences its backward pass
    takes several times as long as the matrix products of the plain way; for long ones the plain way is no faster, and
    keeps weights of the square of the length. Up to rounding both give the same.
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
        short = hidden_states.shape[1] <= LONGEST
        processor = self.plain if short and torch.is_grad_enabled() else self.fused
        return processor(attn, hidden_states, *args, **kwargs)
