"""Features on their way to the disk."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys as Keys

from ..data.feature_store import FeatureStore
from ..utils.stopping import stop_request


class FeatureSaver:
    """Adds the features that an encoder gives to a store, some hundred images at a time.

    A killed run loses no more than the last part; one that is asked to stop (SIGTERM) writes it first.

    Args:
        store: where to.
        part_size: images in a file, at the least, but for the last one.
    """

    def __init__(self, store: FeatureStore, part_size: int = 1000) -> None:
        self.store, self.part_size = store, part_size
        self.hashes: list[str] = []
        self.features: list[torch.Tensor] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, lambda engine: stop_request.hold())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.end)

    def __call__(self, engine: Any) -> None:
        self.hashes += list(engine.state.batch["sha256"])
        self.features.append(engine.state.output[Keys.PRED].float().cpu())
        if len(self.hashes) >= self.part_size or stop_request.wanted:
            self.flush()
        if stop_request.wanted:
            stop_request.leave()

    def flush(self) -> None:
        """Writes what waits."""
        if self.hashes:
            self.store.add(self.hashes, torch.cat(self.features))
        self.hashes, self.features = [], []

    def end(self, engine: Engine) -> None:
        """Writes the last part."""
        self.flush()
        stop_request.release()
