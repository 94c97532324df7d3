"""Gradients of several processes as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from torch import Tensor

from ..utils.processes import average, count, from_first
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
        for parameter in self.parameters:
            from_first(parameter.data)

    def __call__(self, engine: Any) -> None:
        if count() == 1 or not steps_now(engine):
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        together = average(torch.cat([gradient.flatten() for gradient in gradients]))
        for parameter, part in zip(self.parameters, together.split([gradient.numel() for gradient in gradients])):
            parameter.grad = part.view_as(parameter).clone()
