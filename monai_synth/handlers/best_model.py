"""The weights of the best validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from ..utils.processes import is_first
from ..utils.tensors import save_state_dict


class BestModelSaver:
    """Writes a network's weights whenever an evaluator has found a new best key metric, whole or not at all.

    MONAI's `CheckpointSaver` keeps a list of its own of what it has saved, which a new process begins empty: the first
    validation after a resume would take the place of a better model. This one asks the evaluator's state, which
    `TrainingState` restores.

    Args:
        network: whose weights are saved.
        path: of the file, a state dict as torch writes it.
    """

    def __init__(self, network: torch.nn.Module, path: str | Path) -> None:
        self.network, self.path = network, Path(path)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        if engine.state.best_metric_epoch == engine.state.epoch and is_first():
            save_state_dict(self.path, self.network.state_dict())
