"""One progress bar for a whole run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ignite.engine import Engine, Events
from tqdm import tqdm

from ..utils.processes import is_first
from ..utils.tensors import is_waited_for

WAITED_FOR_EVERY = 25  # steps between two losses that a GPU is asked for
_silent = ContextVar("_silent", default=False)


@contextmanager
def without_progress() -> Iterator[None]:
    """Runs a block whose engines show no bars, for whoever runs many of them and shows one bar for all."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


class Progress:
    """Shows how far an engine is, over all its epochs, with the time left and the last loss.

    Args:
        description: stands before the bar.
        unit: what one iteration is.
    """

    def __init__(self, description: str, unit: str = "step") -> None:
        self.description, self.unit = description, unit
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED | Events.TERMINATE | Events.EXCEPTION_RAISED, self.close)

    def open(self, engine: Any) -> None:
        """Begins the bar at the iteration that the engine is at."""
        total = engine.state.max_epochs * engine.state.epoch_length
        self.bar = tqdm(
            total=total,
            initial=engine.state.iteration,
            desc=self.description,
            unit=self.unit,
            disable=_silent.get() or not is_first(),
        )

    def __call__(self, engine: Engine) -> None:
        if self.bar is None:
            return
        output = engine.state.output
        if isinstance(output, dict) and "loss" in output:
            due = engine.state.iteration % WAITED_FOR_EVERY == 0
            if due or not is_waited_for(output["loss"]):
                self.bar.set_postfix(loss=f"{output['loss'].item():.4f}", refresh=False)
        self.bar.update()

    def close(self, engine: Engine, *error: BaseException) -> None:
        """Ends the bar; an error of the engine is passed on."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
        if error:
            raise error[0]
