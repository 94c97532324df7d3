"""Gradients of limited size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from torch import Tensor

from .non_finite_loss import StopOnNonFinite


class GradientClipping(StopOnNonFinite):
    """Limits the norm of the gradient, in the optimizer's own units, before every step.

    A norm that is not finite, which a finite loss can have, ends the training, see `StopOnNonFinite`. Under mixed
    precision the scaler passes over such a step by itself.

    Args:
        parameters: whose gradients are limited together.
        max_norm: largest Euclidean norm.
        advice: what to do when it is not finite, see `StopOnNonFinite`.
    """

    def __init__(
        self, parameters: Iterable[Tensor], max_norm: float = 1.0, advice: str = "Lower the learning rate."
    ) -> None:
        super().__init__("norm of the gradient", advice)
        self.parameters = list(parameters)
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)
        super().attach(engine)

    def __call__(self, engine: Any) -> None:
        if not steps_now(engine):
            return
        if engine.scaler is not None:  # mixed precision scales gradients; the norm is meant unscaled
            engine.scaler.unscale_(engine.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        if engine.scaler is None:
            self.look_at(norm, engine)


def optimizer_steps(engine: Any) -> int:
    """The number of optimizer steps so far, when every epoch holds a whole number of them."""
    return engine.state.iteration // getattr(engine, "accumulation_steps", 1)


def steps_now(engine: Any) -> bool:
    """Whether the optimizer steps at this iteration, which it does at every `accumulation_steps`-th and at the last."""
    local = (engine.state.iteration - 1) % engine.state.epoch_length
    return (local + 1) % engine.accumulation_steps == 0 or local + 1 == engine.state.epoch_length
