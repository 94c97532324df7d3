"""The loop that all stages share."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm

from monai_synth.utils.tensors import load_tensors, save_tensors


def rate(step: int, steps: int, warmup: int = 200) -> float:
    """Learning-rate factor: warm-up, constant, then linear to zero over the last quarter."""
    return min(1.0, (step + 1) / warmup, max(0.0, (steps - step) / (0.25 * steps)))


def trainable(modules: dict[str, torch.nn.Module]) -> list[torch.nn.Parameter]:
    """The parameters that are trained, in a fixed order."""
    return [value for module in modules.values() for value in module.parameters() if value.requires_grad]


def rate_groups(modules: dict[str, torch.nn.Module], factor_of: Callable[[str], float]) -> list[dict[str, Any]]:
    """The parameters that are trained, grouped by the factor of their learning rate."""
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for module in modules.values():
        for name, value in module.named_parameters():
            if value.requires_grad:
                groups.setdefault(factor_of(name), []).append(value)
    return [{"params": values, "factor": factor} for factor, values in groups.items()]


def train(
    work_dir: Path,
    stage: str,
    modules: dict[str, torch.nn.Module],
    loss_of: Callable[[int], dict[str, Tensor]],
    steps: int,
    learning_rate: float,
    decay: float,
    factor_of: Callable[[str], float] = lambda name: 1.0,
) -> None:
    """The loop that all stages share: AdamW, clipping, moving average, a log every 50 steps, checkpoints.

    There is one every 200 steps, on a GPU ten in all.

    Args:
        work_dir: folder of checkpoint and log.
        stage: name of both.
        modules: what is trained, by name.
        loss_of: losses of a step by name; "loss" is the one that is minimized.
        steps: optimizer steps in all.
        learning_rate: peak rate of AdamW.
        decay: of the exponential moving average of the weights, which is what is exported of the denoiser.
        factor_of: of the learning rate, by the name of a parameter.
    """
    parameters = trainable(modules)
    on_gpu = parameters[0].is_cuda
    optimizer = torch.optim.AdamW(rate_groups(modules, factor_of), weight_decay=1e-2, betas=(0.9, 0.99))
    average = EMAModel(parameters, decay=decay, use_ema_warmup=True, power=0.75, foreach=on_gpu)
    path, first = work_dir / f"{stage}.safetensors", 0
    if path.exists():
        state = load_tensors(path)
        first = state["step"]
        for name, module in modules.items():
            module.load_state_dict(state["modules"][name])
        optimizer.load_state_dict(state["optimizer"])
        average.load_state_dict(state["average"])
        average.to(parameters[0].device)
    log_path = work_dir / f"log_{stage}.csv"
    start, history, every = time.time(), [], max(200, steps // 500 * 50) if on_gpu else 200
    for step in tqdm(range(first, steps), initial=first, total=steps, desc=stage, mininterval=10):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"] * rate(step, steps)
        losses = loss_of(step)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(parameters)
        history.append({"norm": norm, **{name: value.detach() for name, value in losses.items()}})  # not waited for
        if (step + 1) % 50 == 0 or step + 1 == steps:
            means = {name: float(torch.stack([row[name] for row in history]).mean()) for name in history[0]}
            history = []
            if not np.isfinite(means.pop("norm")):
                raise RuntimeError(f"A gradient before step {step} is not finite. {path} holds the last good state.")
            with open(log_path, "a", newline="") as file:
                csv.writer(file).writerow(
                    [step + 1, f"{time.time() - start:.0f}", *(f"{name}={value:.5f}" for name, value in means.items())]
                )
        if (step + 1) % every == 0 or step + 1 == steps:
            state = {
                "step": step + 1,
                "modules": {name: module.state_dict() for name, module in modules.items()},
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict(),
            }
            save_tensors(path, state)


def trained(
    work_dir: Path, stage: str, modules: dict[str, torch.nn.Module], average: bool
) -> dict[str, torch.nn.Module]:
    """The modules with the weights of a stage's last checkpoint, or with their moving average, frozen."""
    state = load_tensors(work_dir / f"{stage}.safetensors")
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
    if average:
        parameters = trainable(modules)
        for parameter, value in zip(parameters, state["average"]["shadow_params"]):
            parameter.data.copy_(value)
    return {name: module.eval().requires_grad_(False) for name, module in modules.items()}
