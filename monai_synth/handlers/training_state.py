"""Training that goes on where it was stopped."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..utils.io import read_json, sha256_of, write_json
from ..utils.processes import any_of, count, gathered, is_first
from ..utils.random_states import random_state, set_random_state
from ..utils.stopping import stop_request
from ..utils.tensors import load_tensors, save_tensors
from .best_model import BestModelSaver
from .gradient_clipping import steps_now

logger = logging.getLogger(__name__)


class TrainingState:
    """Saves all that a training needs to go on after each epoch, and restores it when the training starts again.

    The state of an epoch holds the trained weights, optimizer, learning-rate schedule, epoch and best metric; random
    numbers follow from `EpochSeed`. The two newest states are kept, each with its SHA-256, so that a torn or damaged
    file is recognized and the one before it serves.

    A request to stop (SIGTERM) is granted after the running step, with a state that holds where the random generators
    stand as well; the training then goes on within the epoch. Several processes would have to agree on the step, so
    they stop together after the epoch.

    Args:
        folder: where the states lie.
        network: network whose `state_dict` is what is trained.
        optimizer: its optimizer.
        scheduler: its learning-rate schedule, when it has one.
        every: epochs between two states; 1 beside a `best_model`.
        watched: engine of the validation, whose best metric is restored as well.
        best_model: saver of its best weights. A state notes the SHA-256 of their file, and one whose file was lost or
            damaged since is not gone on from, unless its own weights are the best.

    Raises:
        ValueError: for another `every` than 1 beside a `best_model`, whose file is written after any epoch.
    """

    def __init__(
        self,
        folder: str | Path,
        network: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        every: int = 1,
        watched: Any = None,
        best_model: BestModelSaver | None = None,
    ) -> None:
        if best_model is not None and every != 1:
            raise ValueError(
                f"every is {every}, but beside a best_model it must be 1: best weights of an epoch without a state are "
                "in no state, and a training that is killed then begins anew. Leave every out, or best_model."
            )
        self.folder = Path(folder)
        self.network, self.optimizer, self.scheduler = network, optimizer, scheduler
        self.every, self.watched, self.best_model = every, watched, best_model

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.restore)
        engine.add_event_handler(Events.ITERATION_STARTED, lambda engine: stop_request.hold())
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.stop_within)  # all handlers of the step before are done
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self)
        if self.best_model is not None:
            self.best_model.waits = True
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.best_model.write)
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Saves what an epoch has come to."""
        if is_first():  # all have the same
            self.save(engine)
        if any_of(stop_request.wanted):
            stop_request.leave()
        stop_request.release()

    def stop_within(self, engine: Engine) -> None:
        """Saves and ends the program within an epoch, when that is wanted and the optimizer has stepped."""
        # the turn of an epoch's last step comes with the epoch
        if stop_request.wanted and steps_within(engine) and count() == 1 and steps_now(engine):
            self.save(engine)
            stop_request.leave()

    def save(self, engine: Engine) -> None:
        """Writes the state over the older of the two."""
        within = steps_within(engine)
        epoch = engine.state.epoch - (within > 0)
        state: dict[str, Any] = {
            "epoch": epoch,
            "iteration": engine.state.iteration,
            "num_workers": num_workers_of(engine),
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
                "sha256": None if self.best_model is None else self.best_model.sha256,
            }
        if within:
            state["random"] = random_state()
        slot = self.folder / f"state_{-(-engine.state.epoch // self.every) % 2}.safetensors"
        save_tensors(slot, state)
        reached = {"epoch": epoch, "iteration": engine.state.iteration, "sha256": sha256_of(slot)}
        write_json(slot.with_suffix(".json"), reached)

    def restore(self, engine: Engine) -> None:
        """Puts the newest sound state back, or leaves everything as it is when there is none.

        Raises:
            ValueError: when the training was begun with another number of reading processes.
            RuntimeError: when several processes do not find the same.
        """
        states = self._newest_first()
        for path, noted in states:
            if sha256_of(path) != noted.get("sha256"):
                logger.warning("%s, or what is noted of it, is damaged; the other state is used.", path)
                continue
            state = load_tensors(path)
            if self.best_model is not None and not self._best_is_there(self.best_model, state):
                logger.warning(
                    "%s, the best weights that %s tells of, are lost or damaged; the other state is used.",
                    self.best_model.path,
                    path,
                )
                continue
            self._check_readers(engine, state)
            self._load(engine, state)
            steps = steps_within(engine)
            further = f" and {steps} steps" if steps else ""
            logger.info("Going on after epoch %d%s, from %s.", engine.state.epoch, further, path)
            break
        else:
            if states:
                logger.warning("No sound state is left in %s; the training begins anew.", self.folder)
        reached = gathered(engine.state.iteration)
        if len(set(reached)) > 1:
            raise RuntimeError(
                f"The processes found different states in {self.folder}, after {reached} steps: the file system does "
                "not show all of them the same files yet. Run the same command again."
            )

    def _newest_first(self) -> list[tuple[Path, dict[str, Any]]]:
        """The states with what is noted of them; those of which nothing can be read come first."""
        paths = [path for path in self.folder.glob("state_?.safetensors") if path.with_suffix(".json").exists()]
        states = [(path, noted_of(path)) for path in paths]

        def reached(state: tuple[Path, dict[str, Any]]) -> tuple[float, int]:
            noted = state[1]
            return noted.get("epoch", float("inf")), noted.get("iteration", 0)  # earlier versions noted the epoch alone

        return sorted(states, key=reached, reverse=True)

    def _check_readers(self, engine: Engine, state: dict[str, Any]) -> None:
        """Each process that reads images has random numbers of its own, so that another number of them draws others."""
        before, now = state.get("num_workers"), num_workers_of(engine)  # earlier versions did not note it
        if before not in (None, now) and state["epoch"] < (engine.state.max_epochs or 0):
            raise ValueError(
                f"The training in {self.folder} was begun with num_workers {before} and would go on to other weights "
                f"with {now}, since each reading process draws random numbers of its own. Set num_workers to {before}, "
                "or remove that folder to begin anew."
            )

    @staticmethod
    def _best_is_there(best_model: BestModelSaver, state: dict[str, Any]) -> bool:
        """Whether the best weights that a state tells of can be had: none yet, its own, or those of a sound file."""
        return state["best"]["epoch"] < 1 or is_best(state) or best_model.is_sound(state["best"].get("sha256"))

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
        if self.best_model is not None:
            self.best_model.restore(own=is_best(state))
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        begun = steps_within(engine)
        if begun and engine.state.dataloader is not None:
            engine.state.dataloader = BegunEpoch(engine.state.dataloader, begun, state["random"])


def noted_of(path: Path) -> dict[str, Any]:
    """What is noted beside a state: epoch, iteration and sha256; nothing where the note is damaged."""
    try:
        noted = read_json(path.with_suffix(".json"))
    except ValueError:
        return {}
    return noted if isinstance(noted, dict) else {}


def num_workers_of(engine: Any) -> int:
    """How many processes read the images of a training; 0 when it reads them itself."""
    return int(getattr(engine.data_loader, "num_workers", 0))


def is_best(state: dict[str, Any]) -> bool:
    """Whether a state's weights are those of the best validation, with no step beyond."""
    return state["best"]["epoch"] == state["epoch"] and "random" not in state


def steps_within(engine: Engine) -> int:
    """Steps of an epoch that is begun and not at its end; 0 between epochs."""
    return engine.state.iteration % int(engine.state.epoch_length or 1)


class BegunEpoch:
    """The batches of an epoch that follow those of its first steps; later epochs are whole.

    The first batches are drawn once more and dropped, since each random transform keeps a generator of its own; then
    the process's generators are put back to where they stood.

    Args:
        batches: of whole epochs.
        begun: how many of the first epoch's have been trained on.
        state: of the random generators after them, see `random_state`.
    """

    def __init__(self, batches: Iterable[Any], begun: int, state: dict[str, Any]) -> None:
        self.batches, self.begun, self.state = batches, begun, state

    def __iter__(self) -> Iterator[Any]:
        iterator, begun = iter(self.batches), self.begun
        self.begun = 0
        for _ in range(begun):
            next(iterator)
        if begun and count() == 1:  # several processes draw different numbers
            set_random_state(self.state)
        return iterator
