"""Training that goes on where it was stopped."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..utils.io import read_json, sha256_of, write_json
from ..utils.processes import is_first
from ..utils.tensors import load_tensors, save_tensors

logger = logging.getLogger(__name__)


class TrainingState:
    """Saves all that a training needs to go on after each epoch, and restores it when the training starts again.

    The state of an epoch holds the trained weights, optimizer, learning-rate schedule, epoch and best metric; random
    numbers follow from `EpochSeed`. The two newest states are kept, each with its SHA-256, so that a torn or damaged
    file is recognized and the one before it serves.

    Args:
        folder: where the states lie.
        network: network whose `state_dict` is what is trained.
        optimizer: its optimizer.
        scheduler: its learning-rate schedule, when it has one.
        every: epochs between two states.
        watched: engine of the validation, whose best metric is restored as well.
    """

    def __init__(
        self,
        folder: str | Path,
        network: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        every: int = 1,
        watched: Any = None,
    ) -> None:
        self.folder = Path(folder)
        self.network, self.optimizer, self.scheduler = network, optimizer, scheduler
        self.every, self.watched = every, watched

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.restore)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self)
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if not is_first():  # all have the same
            return
        state: dict[str, Any] = {
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "network": dict(self.network.state_dict()),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.scheduler is not None:
            state["scheduler"] = self.scheduler.state_dict()
        if getattr(engine, "scaler", None) is not None:  # of gradients in float16
            state["scaler"] = engine.scaler.state_dict()  # type: ignore[attr-defined]
        if self.watched is not None:
            state["best"] = {
                "metric": float(self.watched.state.best_metric),
                "epoch": int(self.watched.state.best_metric_epoch),
            }
        slot = self.folder / f"state_{(engine.state.epoch // self.every) % 2}.safetensors"
        save_tensors(slot, state)
        write_json(slot.with_suffix(".json"), {"epoch": engine.state.epoch, "sha256": sha256_of(slot)})

    def restore(self, engine: Engine) -> None:
        """Puts the newest sound state back, or leaves everything as it is when there is none."""
        for path in self._newest_first():
            if sha256_of(path) != read_json(path.with_suffix(".json"))["sha256"]:
                logger.warning("%s is damaged; the state before it is used.", path)
                continue
            self._load(engine, load_tensors(path))
            logger.info("Going on after epoch %d, from %s.", engine.state.epoch, path)
            return

    def _newest_first(self) -> list[Path]:
        paths = [path for path in self.folder.glob("state_?.safetensors") if path.with_suffix(".json").exists()]
        return sorted(paths, key=lambda path: read_json(path.with_suffix(".json"))["epoch"], reverse=True)

    def _load(self, engine: Engine, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if state.get("scaler"):
            engine.scaler.load_state_dict(state["scaler"])  # type: ignore[attr-defined]
        if self.watched is not None:
            self.watched.state.best_metric = state["best"]["metric"]
            self.watched.state.best_metric_epoch = state["best"]["epoch"]
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
