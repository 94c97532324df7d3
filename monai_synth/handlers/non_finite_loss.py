"""A run that has diverged ends at once."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from monai.utils import CommonKeys as Keys
from torch import Tensor

from ..utils.stopping import stop_request
from ..utils.tensors import is_waited_for


class StopOnNonFinite:
    """Ends a training one of whose numbers is no longer finite, before a state with spoiled weights is written.

    On a CPU every number is looked at when it is there, before the optimizer steps. Looking at a number on a GPU would
    wait for it, at every step; so there they are gathered on the GPU and looked at when the epoch ends or the training
    is asked to stop. Attach it before `TrainingState`.

    Args:
        what: that is looked at, such as "loss".
        advice: what the user can do, a sentence.
    """

    def __init__(self, what: str, advice: str = "Lower the learning rate.") -> None:
        self.what, self.advice = what, advice
        self.finite: Tensor | None = None

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.settle)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.settle_before_stopping)

    def look_at(self, value: Tensor, engine: Any) -> None:
        """Looks at a number now, or later where it would have to be waited for.

        Raises:
            RuntimeError: when it is not finite.
        """
        finite = value.detach().isfinite().all()
        if is_waited_for(finite):
            self.finite = finite if self.finite is None else self.finite & finite
        elif not finite:
            raise RuntimeError(
                f"The {self.what} is {value.item()} at step {engine.state.iteration}. Nothing of this step was kept; "
                f"the last good state is on the disk. {self.advice}"
            )

    def settle(self, engine: Any) -> None:
        """Looks at what was gathered.

        Raises:
            RuntimeError: when one of the numbers was not finite.
        """
        finite, self.finite = self.finite, None
        if finite is not None and not bool(finite):
            raise RuntimeError(
                f"The {self.what} was not finite at a step up to {engine.state.iteration}. Nothing since the last good "
                f"state, which is on the disk, was kept. {self.advice}"
            )

    def settle_before_stopping(self, engine: Any) -> None:
        """Looks at what was gathered when a state may be written within the epoch."""
        if stop_request.wanted:
            self.settle(engine)


class StopOnNonFiniteLoss(StopOnNonFinite):
    """Ends a training whose loss is no longer a number, see `StopOnNonFinite`.

    Args:
        advice: what the user can do, a sentence.
    """

    def __init__(self, advice: str = "Lower the learning rate.") -> None:
        super().__init__("loss", advice)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)
        super().attach(engine)

    def __call__(self, engine: Any) -> None:
        self.look_at(torch.as_tensor(engine.state.output[Keys.LOSS]), engine)
