"""Gradients of several processes as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from torch import Tensor

from ..utils.processes import average, count, from_first, rank
from .gradient_clipping import steps_now


class GradientAverage:
    """Averages the gradients of all processes before a step of the optimizer, in one message.

    The processes begin with the weights of the first. An adapter's gradients are small, so nothing is gained by sending
    them during the backward pass, and the network needs no wrapper that handlers would have to know. With one process
    it does nothing.

    Args:
        parameters: that the optimizer is given. Frozen ones begin alike too, but keep no gradient: even one of zeros
            would let the optimizer's weight decay change them.
        buffers: of the network. Those of floating point are averaged after each epoch, before all handlers of the epoch
            that follow in the list: running statistics are of a process's own images, and the validation, whose metric
            is of all processes, would judge several networks.
    """

    def __init__(self, parameters: Iterable[Tensor], buffers: Iterable[Tensor] = ()) -> None:
        self.parameters = list(parameters)
        self.buffers = [buffer for buffer in buffers if buffer.is_floating_point()]
        self.averaged = 0  # the last step that was

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.align)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.average_buffers)

    def align(self, engine: Engine) -> None:
        """Gives all processes the weights of the first."""
        self.averaged = 0
        for parameter in self.parameters:
            from_first(parameter.data)

    def __call__(self, engine: Any) -> None:
        """Averages what this step's backward pass has given.

        Raises:
            RuntimeError: when this process repeats a step that all have averaged, for which the others would not wait.
        """
        if count() == 1 or not steps_now(engine):
            return
        if self.averaged == engine.state.iteration:
            raise RuntimeError(
                f"The memory of process {rank()} ran out after the gradients of step {self.averaged} had been averaged "
                "over all processes; it cannot repeat that step alone. Run the same command again with "
                "--gradient_checkpointing True, or with more processes: it goes on from the last state."
            )
        self.averaged = engine.state.iteration
        learned = [parameter for parameter in self.parameters if parameter.requires_grad]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in learned]
        together = average(torch.cat([gradient.flatten() for gradient in gradients]))
        for parameter, part in zip(learned, together.split([gradient.numel() for gradient in gradients])):
            parameter.grad = part.view_as(parameter).clone()

    def average_buffers(self, engine: Engine) -> None:
        """Gives all processes the mean of their buffers; what is the same in all of them stays so to the bit."""
        if count() == 1 or not self.buffers:
            return
        # a sum of equal float32 numbers is exact in float64
        together = average(torch.cat([buffer.double().flatten() for buffer in self.buffers]))
        for buffer, part in zip(self.buffers, together.split([buffer.numel() for buffer in self.buffers])):
            buffer.copy_(part.view_as(buffer))
