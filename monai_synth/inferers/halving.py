"""Evaluation batches that fit the memory of the GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn

logger = logging.getLogger(__name__)


class HalvingInferer(SimpleInferer):
    """Runs a batch whole, and from the moment on at which the memory does not suffice in halves, quarters and so on.

    It is for networks in evaluation mode, whose images do not depend on their batch: the results stay the same, up to
    rounding.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most_at_once: int | None = None  # found when the memory does not suffice

    def __call__(  # type: ignore[override]  # a network is a module
        self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Tensor:
        """
        Args:
            inputs: batch, shape (B, ...).
            network: called as network(inputs, *args, **kwargs).
            args: for the network, as they are.
            kwargs: likewise.

        Returns:
            What the network gives, B items.

        Raises:
            torch.OutOfMemoryError: when the memory is too small for one image.
        """
        return self.in_halves(lambda part: network(inputs[part], *args, **kwargs), len(inputs))

    def in_halves(self, run: Callable[[slice], Tensor], size: int) -> Tensor:
        """The results of all parts of a batch, which `run` gives of each.

        Args:
            run: gives the results of a part of the batch.
            size: of the batch.

        Raises:
            torch.OutOfMemoryError: when the memory is too small for one image.
        """
        results: list[Tensor] = []
        done = 0
        while done < size:
            part = slice(done, min(done + (self.most_at_once or size), size))
            count = part.stop - part.start
            try:
                results.append(run(part))
                done = part.stop
                continue
            except torch.OutOfMemoryError:
                if count == 1:
                    raise
            # Out of the handler, so that the error's traceback no longer holds the tensors that did not fit.
            torch.cuda.empty_cache()
            self.most_at_once = count // 2
            logger.warning("%d images at once need more memory than there is; now %d at once.", count, count // 2)
        return torch.cat(results)
