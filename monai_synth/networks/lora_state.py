"""What an adapter in training carries beside its weights, and the layers that have one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from peft import get_peft_model_state_dict
from torch import Tensor, nn


class WeightAverage(nn.Module):
    """An exponential moving average of weights, as a module, so that it travels in its owner's `state_dict`.

    Args:
        parameters: whose average is kept.
        decay: share of the average that stays at each step; it is smaller at the beginning.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        super().__init__()
        self.model = EMAModel(parameters, decay=decay)

    def update(self, parameters: Iterator[nn.Parameter]) -> None:
        """Takes in the weights after a step of the optimizer."""
        parameters_now = list(parameters)
        self.model.to(parameters_now[0].device)
        self.model.step(parameters_now)

    def get_extra_state(self) -> dict[str, Any]:
        return self.model.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        device = self.model.shadow_params[0].device
        self.model.load_state_dict(state)
        self.model.to(device)


class InitialState(nn.Module):
    """The adapter as PiSSA began it, which is taken off again when it is saved.

    PiSSA moves a part of the base's weights into the adapter. What was learned is the difference between the adapter
    and its beginning, so both are kept.
    """

    def __init__(self, adapted: dict[str, Any]) -> None:
        super().__init__()
        self.states = {name: _clone(get_peft_model_state_dict(part)) for name, part in adapted.items()}
        self.adapted = [adapted]  # in a list: the parts are no children of this module

    def get_extra_state(self) -> dict[str, Any]:
        return self.states

    def set_extra_state(self, states: dict[str, Any]) -> None:
        """Takes the beginning of a training that goes on, and makes the base's rest fit to it to the last bit."""
        (adapted,) = self.adapted
        for name, part in adapted.items():
            for key, module in lora_layers(part):
                now, before = self.states[name], states[name]
                down, up = f"{key}.lora_A.weight", f"{key}.lora_B.weight"
                scale = module.scaling["default"]
                weight = module.get_base_layer().weight
                old = [tensor.to(weight) for tensor in (now[up], now[down], before[up], before[down])]
                if not (torch.equal(old[0], old[2]) and torch.equal(old[1], old[3])):
                    weight.data += scale * (old[0] @ old[1] - old[2] @ old[3])
        self.states = {name: _clone(state) for name, state in states.items()}


def _clone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}


def lora_layers(part: nn.Module) -> list[tuple[str, Any]]:
    """The layers of a part that have an adapter, by name."""
    return [(name, module) for name, module in part.named_modules() if hasattr(module, "lora_A")]
