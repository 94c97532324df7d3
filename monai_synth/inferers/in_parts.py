"""A training step that fits the memory of the GPU, whatever the size of its batch."""

from __future__ import annotations

import gc
import logging
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.utils import CommonKeys as Keys
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .cuda_graph import CUDAGraph

logger = logging.getLogger(__name__)


class InPartsInferer(SimpleInferer):
    """Runs a training batch whole, and in ever smaller parts from the moment on at which the memory does not suffice.

    In parts, what a part's layers put out is not kept but computed again for its gradients (checkpointing), so that the
    memory of one part is all that is needed. The batch that the loss and the optimizer see stays the same, and so do
    the gradients, up to rounding. It is for networks whose images do not depend on their batch: no batch statistics.

    Args:
        cuda_graph: run a whole batch as a `CUDAGraph`; None does so wherever it can be had.

    Example:
        >>> inferer = InPartsInferer()
        >>> trainer = SupervisedTrainer(..., inferer=inferer, iteration_update=inferer.iteration)
    """

    def __init__(self, cuda_graph: bool | None = False) -> None:
        super().__init__()
        self.parts = 1
        self.cuda_graph = cuda_graph
        self.graph: CUDAGraph | None = None

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
            What the network gives, B items; of a graph, until the next call.

        Raises:
            ValueError: where a graph is asked for and cannot be had.
        """
        if self.parts == 1:
            if self.cuda_graph is not False and self.graph is None:
                self.choose(inputs, network, kwargs)
            if self.graph is not None:
                return self.graph(inputs, network, *args, **kwargs)
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

    def choose(self, inputs: Tensor, network: nn.Module, kwargs: dict[str, Any]) -> None:
        """Settles with the first batch whether whole batches are run as a graph.

        Raises:
            ValueError: where that is asked for and cannot be; says why.
        """
        obstacle = _obstacle(inputs, network, kwargs)
        if obstacle and self.cuda_graph:
            raise ValueError(f"cuda_graph is true, but {obstacle}. Leave cuda_graph out, or set it to false.")
        self.cuda_graph = not obstacle
        self.graph = None if obstacle else CUDAGraph()

    def iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict:
        """The `iteration_update` of a trainer: MONAI's own, and once more in smaller parts when the memory runs out.

        Raises:
            torch.OutOfMemoryError: when there is too little memory for a single image.
            RuntimeError: when the memory ran out after the optimizer had begun to change the weights.
        """
        numbers, size = torch.get_rng_state(), len(batchdata[Keys.IMAGE])
        parameters = [parameter for group in engine.optimizer.param_groups for parameter in group["params"]]
        accumulates = engine.accumulation_steps > 1
        gradients = [_copy(parameter.grad) if accumulates else None for parameter in parameters]
        versions, known = [parameter._version for parameter in parameters], set(engine.optimizer.state)
        while True:
            try:
                return engine._iteration(engine, batchdata)
            except torch.OutOfMemoryError as error:
                if self.parts >= size:
                    raise
                if versions != [parameter._version for parameter in parameters]:
                    raise RuntimeError(
                        "The memory ran out within the optimizer's step, when it had changed some of the weights; it "
                        "cannot be repeated. Run the same command again with --gradient_checkpointing True: it goes on "
                        "from the last state."
                    ) from error
            # Out of the handler, so that the error's traceback no longer holds the tensors that did not fit.
            self.parts = min(2 * self.parts, size)
            self.graph, self.cuda_graph = None, False  # whose memory is wanted now
            engine.state.output = None  # and that of what the network gave
            for parameter in engine.optimizer.state.keys() - known:  # of the first step, and not whole
                del engine.optimizer.state[parameter]
            if engine.scaler is not None and engine.scaler.is_enabled():
                _forget_step(engine.scaler, engine.optimizer)
            logger.warning("A batch of %d needs more memory than there is; it goes on in %d parts.", size, self.parts)
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = _copy(gradient)
            torch.set_rng_state(numbers)
            gc.collect()  # a graph is part of a circle, and its memory is its own until it is gone
            torch.cuda.empty_cache()


def _obstacle(inputs: Tensor, network: nn.Module, kwargs: dict[str, Any]) -> str:
    """Why a batch cannot be run as a graph; empty where it can."""
    if not inputs.is_cuda:
        return "the training does not run on a GPU"
    if torch.is_autocast_enabled("cuda"):
        return "the training runs under torch's autocast, as with amp float16"
    if "token_ids" in kwargs.get("context", {}):
        return "the text encoder learns (train_text_encoder)"
    if getattr(getattr(network, "diffusion", None), "prediction_type", None) == "flow":
        return "the base predicts the flow, and a run of one with a graph has failed for a reason that is not known yet"
    if any(getattr(module, "gradient_checkpointing", False) for module in network.modules()):
        return "activations are computed anew in the backward pass (gradient_checkpointing)"
    return ""


def _forget_step(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> None:
    """Lets a scaler and its optimizer begin a step anew that was broken off; the scale stays as it is."""
    scaler._per_optimizer_states.pop(id(optimizer), None)  # that its gradients are unscaled; only update() forgets it
    for name in ("grad_scale", "found_inf"):  # a fused optimizer's, which step() would take for the user's own
        vars(optimizer).pop(name, None)


def _part(kwargs: dict[str, Any], start: int, length: int) -> dict[str, Any]:
    return {
        name: _part(value, start, length) if isinstance(value, dict) else value[start : start + length]
        for name, value in kwargs.items()
    }


def _copy(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.clone()
