"""The adapter as a file that diffusers reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ..networks.adapter_files import save_adapter
from ..networks.lora import LoRADenoiser
from ..utils.processes import is_first
from .gradient_clipping import optimizer_steps


class AdapterSaver:
    """Writes the adapter after some epochs and at the end, with its origin in the file's header.

    Args:
        network: whose adapter is written.
        folder: where to.
        metadata: plain values for the header; the number of optimizer steps is added.
        every: epochs between two writings.
    """

    def __init__(self, network: LoRADenoiser, folder: str | Path, metadata: dict[str, Any], every: int = 1) -> None:
        self.network, self.folder, self.metadata, self.every = network, Path(folder), metadata, every

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self)
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if is_first():
            save_adapter(self.network, self.folder, {**self.metadata, "steps": optimizer_steps(engine)})
