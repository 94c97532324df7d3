"""Learning rates that follow the optimizer's steps."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from torch.optim.lr_scheduler import LRScheduler

from .gradient_clipping import steps_now


class StepSchedule:
    """Moves a learning-rate schedule on after every step of the optimizer.

    MONAI's `LrScheduleHandler` counts iterations, of which several make one step when gradients are gathered.

    Args:
        lr_scheduler: in steps of the optimizer.
    """

    def __init__(self, lr_scheduler: LRScheduler) -> None:
        self.lr_scheduler = lr_scheduler

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        if steps_now(engine):
            self.lr_scheduler.step()
