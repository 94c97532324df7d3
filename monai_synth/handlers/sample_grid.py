"""Pictures of how far a fine-tuning is."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from torch import nn
from torchvision.utils import make_grid

from ..data.synthetic_image import write_synthetic_image
from ..engines.prepare_batch import SamplingPrepareBatch
from ..inferers.sampling import SamplingInferer
from ..networks.lora import LoRADenoiser
from ..utils.processes import is_first
from .gradient_clipping import optimizer_steps
from .training_state import steps_within


class SampleGrid:
    """Draws a grid after some epochs: a row for each prompt, a column for each seed, the same seeds every time.

    Where an average of the adapter's weights is kept, it draws. A training that was stopped before its grid was drawn,
    and goes on, begins with that grid.

    Args:
        network: denoiser that is being trained.
        prepare_batch: turns prompts and seeds into noise and features.
        inferer: draws the images.
        prompts: one for each row.
        folder: gets `samples_<step>.png`.
        num_columns: seeds 0 to this number - 1.
        every: epochs between two grids; the end always gets one. 0 draws none at all.
    """

    def __init__(
        self,
        network: nn.Module,
        prepare_batch: SamplingPrepareBatch,
        inferer: SamplingInferer,
        prompts: list[str],
        folder: str | Path,
        num_columns: int = 6,
        every: int = 1,
    ) -> None:
        self.network, self.prepare_batch, self.inferer = network, prepare_batch, inferer
        self.prompts, self.folder = prompts, Path(folder)
        self.num_columns, self.every = num_columns, every

    def attach(self, engine: Engine) -> None:
        if self.every == 0:
            return
        engine.add_event_handler(Events.STARTED, self.catch_up)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self)
        engine.add_event_handler(Events.COMPLETED, self)

    def catch_up(self, engine: Engine) -> None:
        """Draws the grid of the epoch after which a training goes on, where it is due and missing."""
        epoch = engine.state.epoch
        if epoch and epoch % self.every == 0 and not steps_within(engine):
            self(engine)

    def __call__(self, engine: Engine) -> None:
        path = self.folder / f"samples_{optimizer_steps(engine):06d}.png"
        if path.exists() or not is_first():  # the last epoch and the end are the same step
            return
        device = next(self.network.parameters()).device
        rows = []
        self.network.eval()
        averaged = self.network.averaged() if isinstance(self.network, LoRADenoiser) else nullcontext()
        with averaged:
            for prompt in self.prompts:
                batch = {"prompt": [prompt] * self.num_columns, "seed": range(self.num_columns)}
                noise, _, _, features = self.prepare_batch(batch, device)
                rows.append(self.inferer(noise, self.network, **features).cpu())
        write_synthetic_image(path, make_grid(torch.cat(rows), nrow=self.num_columns, pad_value=1.0))
