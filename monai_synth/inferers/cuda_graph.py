"""A step whose kernels a GPU starts all at once."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


class CUDAGraph:
    """Runs the forward and the backward pass of a network that learns as two CUDA graphs.

    A denoiser with an adapter consists of thousands of small kernels, and a processor takes longer to start them one by
    one than a GPU to run them. The graphs are recorded with the first batch; a batch of another shape is run as ever.
    What is computed is the same.

    Reference:
        Ng et al., "Accelerating PyTorch with CUDA Graphs", 2021.
        https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/
    """

    def __init__(self) -> None:
        self.recorded: Any = None
        self.shapes: list[tuple[torch.Size, torch.dtype]] = []
        self.parameters: list[nn.Parameter] = []

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """What the network gives for a batch; the next call overwrites it.

        Args:
            inputs: batch on a GPU, shape (B, ...).
            network: in the mode of training, called as network(inputs, *args, **kwargs).
            args: tensors, and dictionaries of tensors, on the same GPU.
            kwargs: as args; always the same names in the same order.
        """
        values = (inputs, *args, *kwargs.values())
        if self.recorded is None:
            self.record(network, values, tuple(kwargs))
        if _shapes(*values) != self.shapes:
            return network(inputs, *args, **kwargs)
        for parameter in self.parameters:
            if parameter.grad is None:  # else autograd would take the graph's own memory for it, and add to it in vain
                parameter.grad = torch.zeros_like(parameter)
        return self.recorded(*values)

    def record(self, network: nn.Module, values: tuple[Any, ...], names: tuple[str, ...]) -> None:
        """Records the graphs for batches of these shapes.

        Args:
            network: that learns.
            values: a batch and what else the network is given.
            names: of the last ones.
        """
        self.shapes = _shapes(*values)
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.recorded = torch.cuda.make_graphed_callables(_Named(network, names), values, allow_unused_input=True)
        logger.info("Steps of %d images run as a CUDA graph from now on.", len(values[0]))


class _Named(nn.Module):
    """A network whose keywords' values come last, in a fixed order, since graphs know no keywords."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, inputs: Tensor, *values: Any) -> Tensor:
        first = len(values) - len(self.names)
        return self.network(inputs, *values[:first], **dict(zip(self.names, values[first:])))


def _shapes(*values: Any) -> list[tuple[torch.Size, torch.dtype]]:
    found: list[tuple[torch.Size, torch.dtype]] = []
    for value in values:
        found += _shapes(*value.values()) if isinstance(value, dict) else [(value.shape, value.dtype)]
    return found
