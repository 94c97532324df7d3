"""Attention with a layer for each projection, so that low-rank adapters can be added."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


class SplitAttention(nn.Module):
    """A `torch.nn.MultiheadAttention` whose query, key, value and output are linear layers, equal in what it computes.

    torch keeps the three projections in one parameter and never calls its output layer, so adapters cannot be added
    to it. peft has a wrapper that adds the update to the weights before every call and subtracts it after; in floating
    point the frozen weights then drift with every step, and a checkpoint of the adapter alone is no longer exact.

    Args:
        attention: whose weights are taken over.

    Raises:
        ValueError: when queries, keys and values have different sizes, or come sequence first.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        if attention.in_proj_weight is None or not attention.batch_first:
            raise ValueError("Only attention with one size of queries, keys and values, batch first, can be split.")
        self.num_heads, self.embed_dim = attention.num_heads, attention.embed_dim
        weights, biases = attention.in_proj_weight.data.chunk(3), attention.in_proj_bias.data.chunk(3)
        self.q_proj: Any = _linear(weights[0], biases[0])
        self.k_proj: Any = _linear(weights[1], biases[1])
        self.v_proj: Any = _linear(weights[2], biases[2])
        self.out_proj: Any = _linear(attention.out_proj.weight.data, attention.out_proj.bias.data)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Attended values, shape (B, L, D), and None in the place of the weights, as torch's class gives them."""
        batch, length = query.shape[:2]

        def heads(x: Tensor) -> Tensor:
            return x.view(batch, -1, self.num_heads, self.embed_dim // self.num_heads).transpose(1, 2)

        q, k, v = heads(self.q_proj(query)), heads(self.k_proj(key)), heads(self.v_proj(value))
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(attended.transpose(1, 2).reshape(batch, length, self.embed_dim)), None

    def joined(self) -> nn.MultiheadAttention:
        """The same attention as torch's class, with adapters added to its weights for good."""
        query, key, value, out = map(_merged, (self.q_proj, self.k_proj, self.v_proj, self.out_proj))
        attention = nn.MultiheadAttention(self.embed_dim, self.num_heads, batch_first=True)
        attention.in_proj_weight = nn.Parameter(torch.cat([query.weight, key.weight, value.weight]).detach())
        attention.in_proj_bias = nn.Parameter(torch.cat([query.bias, key.bias, value.bias]).detach())
        attention.out_proj.weight, attention.out_proj.bias = out.weight, out.bias
        return attention


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return layer


def _merged(layer: Any) -> Any:
    if not isinstance(layer, LoraLayer):
        return layer
    layer.merge()  # type: ignore[operator]
    return layer.get_base_layer()


def split_attention(module: nn.Module) -> int:
    """Replaces every `torch.nn.MultiheadAttention` below a module by a `SplitAttention`, and gives their number."""
    found = [name for name, child in module.named_modules() if isinstance(child, nn.MultiheadAttention)]
    for name in found:
        module.set_submodule(name, SplitAttention(module.get_submodule(name)))  # type: ignore[arg-type]
    return len(found)


def join_attention(module: nn.Module) -> nn.Module:
    """Undoes `split_attention` in place, adapters merged, and gives the module."""
    for name in [name for name, child in module.named_modules() if isinstance(child, SplitAttention)]:
        module.set_submodule(name, module.get_submodule(name).joined())  # type: ignore[operator]
    return module
