"""Gradients of several processes as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from torch import Tensor

from ..utils.processes import count
from .gradient_clipping import steps_now


class GradientAverage:
    """Averages the gradients of all processes before a step of the optimizer, in one message.

    The processes begin with the weights of the first. An adapter's gradients are small, so nothing is gained by sending
    them during the backward pass, and the network needs no wrapper that handlers would have to know. With one process
    it does nothing.

    Args:
        parameters: that the optimizer trains.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = list(parameters)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.align)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def align(self, engine: Engine) -> None:
        """Gives all processes the weights of the first."""
        if count() > 1:
            for parameter in self.parameters:
                dist.broadcast(parameter.data, src=0)

    def __call__(self, engine: Any) -> None:
        if count() == 1 or not steps_now(engine):
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        together /= count()
        for parameter, part in zip(self.parameters, together.split([gradient.numel() for gradient in gradients])):
            parameter.grad = part.view_as(parameter).clone()
