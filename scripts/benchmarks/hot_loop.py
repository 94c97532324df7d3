"""Where the time of a fine-tuning step and of a drawn batch goes, by operation, and how often the GPU is waited for."""

from __future__ import annotations

from pathlib import Path

import torch
from ignite.engine import Events
from torch.profiler import ProfilerActivity, profile

from monai_synth.handlers.progress import without_progress

from .generation import BATCH, Ours, Setting
from .shipped import shipped_training
from .timing import markdown

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
WARM_UP = 3  # steps before those that are looked at
STEPS = 5


def profiler(device: torch.device) -> profile:
    """A profiler of the processor and, where there is one, the GPU."""
    gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    return profile(activities=[ProfilerActivity.CPU, *gpu])


def operations(title: str, found: profile, times: int, device: torch.device, num_rows: int = 8) -> str:
    """The operations that take most of the time, as a table.

    Args:
        title: what was profiled.
        found: a profiler that has stopped.
        times: how often it was done; the figures are for one.
        device: whose time counts.
        num_rows: operations that are shown.
    """
    on_gpu = device.type == "cuda"
    averages = found.key_averages()

    def own_time(row: object) -> float:
        return float(getattr(row, "self_device_time_total" if on_gpu else "self_cpu_time_total"))

    whole = sum(own_time(row) for row in averages)
    first = sorted(averages, key=own_time, reverse=True)[:num_rows]
    rows = [[f"`{row.key[:60]}`", f"{row.count / times:g}", f"{own_time(row) / whole:.0%}"] for row in first]
    table = markdown(f"{title}: {whole / times / 1e6:.3f} s", ["operation", "calls", "share of the time"], rows)
    if on_gpu:
        waits = sum(row.count for row in averages if row.key in WAITS)
        table += f"\nThe GPU was waited for {waits / times:g} times; the profiler itself waits once, as it stops.\n"
    return table


def profile_training(setting: Setting, images: list[tuple[Path, str]]) -> str:
    """The profile of a step of the trainer that train_diffusion.json builds, with all its handlers, in bfloat16.

    Steps within an epoch are looked at; a state is written when one ends, after 25 steps or fewer.

    Args:
        setting: the base and where is trained.
        images: paths and prompts of those that are trained on.
    """
    folder, steps = setting.folder / "profiled", WARM_UP + STEPS
    parser = shipped_training(
        *(setting.base, setting.device, images, setting.size, folder),
        **{"max_steps": steps, "amp": "bfloat16", **setting.overlay},
    )
    trainer, found = parser.get_parsed_content("train::trainer"), profiler(setting.device)
    # Ignite counts an iteration once its batch is there: the one after WARM_UP begins with its batch.
    trainer.add_event_handler(Events.GET_BATCH_STARTED(once=WARM_UP), found.start)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=steps), found.stop)
    with without_progress():
        trainer.run()
    return operations("A step of train_diffusion.json's trainer", found, STEPS, setting.device)


def profile_drawing(setting: Setting, interval: tuple[float, float]) -> str:
    """The profile of a batch that is drawn in 12 steps in bfloat16, without its files.

    Args:
        setting: what is drawn, and with which adapter.
        interval: noise levels at which guidance acts.
    """
    ours = Ours(setting, 12, interval=interval, dtype=torch.bfloat16)
    ours.network.diffusion.compiled = False  # another way may have left it so
    requests = setting.requests(BATCH)[:BATCH]
    batch = {key: [request[key] for request in requests] for key in ("seed", "prompt")}

    def draw() -> None:
        noise, _, _, features = ours.prepare_batch(batch, setting.device, non_blocking=True)
        ours.inferer(noise, ours.network, **features)

    draw()
    with profiler(setting.device) as found:
        draw()
    return operations("A batch, 12 steps", found, 1, setting.device)
