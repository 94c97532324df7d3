"""The memory of a nearest-neighbor classifier."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys as Keys

from ..networks.neighbors import NeighborClassifier


class NeighborMemory:
    """Fills the memory of a nearest-neighbor classifier with the features that an engine computes.

    The engine runs the classifier's encoder over the training images once, in the place of a trainer.

    Args:
        network: whose memory is filled.
    """

    def __init__(self, network: NeighborClassifier) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def clear(self, engine: Engine) -> None:
        """Empties the memory."""
        self.network.forget()

    def __call__(self, engine: Any) -> None:
        batch = engine.state.batch
        label, weight = torch.as_tensor(batch[Keys.LABEL]), torch.as_tensor(batch["weight"])
        features = engine.state.output[Keys.PRED]
        self.network.remember(features, label.to(features.device), weight.to(features.device))
