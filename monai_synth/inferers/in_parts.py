"""A training step that fits the memory of the GPU, whatever the size of its batch."""

from __future__ import annotations

import logging
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.utils import CommonKeys as Keys
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

logger = logging.getLogger(__name__)


class InPartsInferer(SimpleInferer):
    """Runs a training batch whole, and in ever smaller parts from the moment on at which the memory does not suffice.

    In parts, what a part's layers put out is not kept but computed again for its gradients (checkpointing), so that the
    memory of one part is all that is needed. The batch that the loss and the optimizer see stays the same, and so do
    the gradients, up to rounding. It is for networks whose images do not depend on their batch: no batch statistics.

    Example:
        >>> inferer = InPartsInferer()
        >>> trainer = SupervisedTrainer(..., inferer=inferer, iteration_update=inferer.iteration)
    """

    def __init__(self) -> None:
        super().__init__()
        self.parts = 1

    def __call__(  # type: ignore[override]  # a network is a module
        self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Tensor:
        """
        Args:
            inputs: batch, shape (B, ...).
            network: called as network(inputs, *args, **kwargs).
            args: for the network, as they are.
            kwargs: tensors, and dictionaries of tensors, of B items each.

        Returns:
            What the network gives, B items.
        """
        if self.parts == 1:
            return network(inputs, *args, **kwargs)
        length = -(-len(inputs) // self.parts)
        return torch.cat(
            [
                checkpoint(
                    network, inputs[start : start + length], *args, use_reentrant=False, **_part(kwargs, start, length)
                )
                for start in range(0, len(inputs), length)
            ]
        )

    def iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict:
        """The `iteration_update` of a trainer: MONAI's own, and once more in smaller parts when the memory runs out.

        Raises:
            torch.OutOfMemoryError: when there is too little memory for a single image.
        """
        numbers, size = torch.get_rng_state(), len(batchdata[Keys.IMAGE])
        parameters = [parameter for group in engine.optimizer.param_groups for parameter in group["params"]]
        accumulates = engine.accumulation_steps > 1
        gradients = [_copy(parameter.grad) if accumulates else None for parameter in parameters]
        while True:
            try:
                return engine._iteration(engine, batchdata)
            except torch.OutOfMemoryError:
                if self.parts >= size:
                    raise
            # Out of the handler, so that the error's traceback no longer holds the tensors that did not fit.
            self.parts = min(2 * self.parts, size)
            logger.warning("A batch of %d needs more memory than there is; it goes on in %d parts.", size, self.parts)
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = _copy(gradient)
            torch.set_rng_state(numbers)
            torch.cuda.empty_cache()


def _part(kwargs: dict[str, Any], start: int, length: int) -> dict[str, Any]:
    return {
        name: _part(value, start, length) if isinstance(value, dict) else value[start : start + length]
        for name, value in kwargs.items()
    }


def _copy(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.clone()
