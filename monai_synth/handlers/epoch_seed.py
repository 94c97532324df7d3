"""Random numbers that depend on the seed and the epoch alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.transforms import Compose, Randomizable

from ..utils.processes import rank
from ..utils.seeds import derived_seed


class EpochSeed:
    """Seeds all generators anew at every epoch and tells the sampler which it is.

    A run resumed at an epoch then draws what the whole run drew.

    Args:
        seed: seed of the run.
        transform: random transforms of the training data, if any; they keep generators of their own.
    """

    def __init__(self, seed: int, transform: Randomizable | Compose | None = None) -> None:
        self.seed = seed
        self.transform = transform

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Any) -> None:
        own = [rank()] if rank() else []  # every process draws other images
        seed = derived_seed(self.seed, "epoch", engine.state.epoch, *own) % 2**32
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        transform = self.transform or getattr(getattr(engine.data_loader, "dataset", None), "transform", None)
        if isinstance(transform, (Randomizable, Compose)):
            transform.set_random_state(seed=seed)
        sampler: Any = getattr(engine.data_loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(engine.state.epoch)
