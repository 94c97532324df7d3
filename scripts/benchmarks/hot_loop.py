"""Where the time of a fine-tuning step and of a drawn batch goes, by operation, and how often the GPU is waited for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from .fine_tuning import Stepper
from .generation import BATCH, Ours, Setting
from .timing import markdown

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def profiled(title: str, function: Callable[[], object], on_gpu: bool, num_rows: int = 8) -> str:
    """The operations that take most of a call's time, the second call, as a table.

    Args:
        title: what is called.
        function: the call.
        on_gpu: count the GPU's time.
        num_rows: operations that are shown.
    """
    function()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as found:
        function()
    averages = found.key_averages()

    def own_time(row: object) -> float:
        return float(getattr(row, "self_device_time_total" if on_gpu else "self_cpu_time_total"))

    whole = sum(own_time(row) for row in averages)
    first = sorted(averages, key=own_time, reverse=True)[:num_rows]
    rows = [[f"`{row.key[:60]}`", str(row.count), f"{own_time(row) / whole:.0%}"] for row in first]
    table = markdown(f"{title}: {whole / 1e6:.3f} s", ["operation", "calls", "share of the time"], rows)
    if on_gpu:
        table += f"\nThe GPU was waited for {sum(row.count for row in averages if row.key in WAITS)} times.\n"
    return table


def profile_hot_loops(setting: Setting, images: list, dtype: torch.dtype, interval: tuple[float, float]) -> str:
    """Profiles of a fine-tuning step and of a batch that is drawn, without its files.

    Args:
        setting: what is drawn, and with which adapter.
        images: paths and prompts of those that are trained on.
        dtype: of the base.
        interval: noise levels at which guidance acts.
    """
    on_gpu = setting.device.type == "cuda"
    stepper = Stepper(setting.base, setting.device, images, setting.size, True, True, dtype)
    ours = Ours(setting, 12, interval=interval, dtype=dtype)
    requests = setting.requests(BATCH)[:BATCH]
    batch = {key: [request[key] for request in requests] for key in ("seed", "prompt")}

    def draw() -> None:
        noise, _, _, features = ours.prepare_batch(batch, setting.device)
        ours.inferer(noise, ours.network, **features)

    tables = profiled("A fine-tuning step", stepper.step, on_gpu), profiled("A batch, 12 steps", draw, on_gpu)
    return "\n".join(tables)
