"""The average of an adapter's weights over the steps of a training."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events

from ..networks.lora import LoRADenoiser
from .gradient_clipping import steps_now


class AdapterAverage:
    """Takes the adapter's weights into their average after every step of the optimizer.

    It does nothing for a network that keeps no average. The average travels in the network's `state_dict`, so that a
    resumed training goes on with it.

    Args:
        network: whose adapter is averaged, see `LoRADenoiser`.
    """

    def __init__(self, network: LoRADenoiser) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        if self.network.lora_average is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        if steps_now(engine) and self.network.lora_average is not None:
            self.network.lora_average.update(self.network.trainable_parameters())
