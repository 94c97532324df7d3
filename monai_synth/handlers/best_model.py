"""The weights of the best validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from ..utils.io import sha256_of
from ..utils.processes import is_first
from ..utils.tensors import save_state_dict


def no_worse(current: float, best: float) -> bool:
    """Of equally good epochs the last one is kept, which was trained longest and at the lowest rate.

    It is the `metric_cmp_fn` of MONAI's evaluators, whose own keeps the first: with a handful of validation images many
    epochs are equal.
    """
    return current >= best


class BestModelSaver:
    """Writes a network's weights whenever an evaluator has found a new best key metric, whole or not at all.

    MONAI's `CheckpointSaver` keeps a list of its own of what it has saved, which a new process begins empty: the first
    validation after a resume would take the place of a better model. This one asks the evaluator's state, which
    `TrainingState` restores.

    Beside a `TrainingState` that knows it, the file waits until the state of the epoch is on the disk, which holds the
    same weights: however the run is killed, the state can tell or make again what the file has to be.

    Args:
        network: whose weights are saved.
        path: of the file, a state dict as torch writes it.
    """

    def __init__(self, network: torch.nn.Module, path: str | Path) -> None:
        self.network, self.path = network, Path(path)
        self.waits = False  # for `TrainingState` to call `write`
        self.found = False
        self.sha256: str | None = None  # of the file

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        self.found = engine.state.best_metric_epoch == engine.state.epoch
        if not self.waits:
            self.write()

    def write(self) -> None:
        """Writes the weights when the last validation has found a new best."""
        if self.found and is_first():
            save_state_dict(self.path, self.network.state_dict())
            self.sha256 = sha256_of(self.path)
        self.found = False

    def is_sound(self, sha256: str | None) -> bool:
        """Whether the file is there with the bytes that a state notes; earlier versions noted None."""
        return self.path.is_file() and sha256 in (None, sha256_of(self.path))

    def restore(self, own: bool) -> None:
        """Goes on with the file that is there, or makes it again from the network when its weights are the best ones.

        Args:
            own: whether they are.
        """
        self.found = own
        self.write()
        if not own and self.path.is_file():
            self.sha256 = sha256_of(self.path)
