"""A run that has diverged ends at once."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine
from monai.engines import IterationEvents
from monai.utils import CommonKeys as Keys


class StopOnNonFiniteLoss:
    """Ends a training whose loss is no longer a number, before the optimizer can spoil the weights.

    Args:
        advice: what the user can do, a sentence.
    """

    def __init__(self, advice: str = "Lower the learning rate.") -> None:
        self.advice = advice

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        loss = engine.state.output[Keys.LOSS]
        if not bool(loss.isfinite().all()):
            raise RuntimeError(
                f"The loss is {loss.item()} at step {engine.state.iteration}. Nothing of this step was kept; the last "
                f"good state is on the disk. {self.advice}"
            )
