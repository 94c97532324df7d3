"""Peak memory of fine-tuning, and of drawing few and many images, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from monai_synth.utils.memory import peak_host_bytes

from .fine_tuning import BATCH as TUNING_BATCH
from .fine_tuning import Stepper
from .generation import BATCH, Ours, Plain, Setting
from .shipped import train_as_shipped
from .timing import markdown

STEPS = 2  # of a sampler or an optimizer; more take no more memory
TIMES = 20  # as many images, which must not take more memory
MIB = 2**20
WAYS = "the works' way: diffusers' pipeline", "ours: adapter in the weights, two writers, bfloat16"
TUNING = "the works' way, float32", "train_diffusion.json, all handlers, bfloat16"


def peaks_of(way: str, setting: Setting, per_class: int, interval: tuple[float, float]) -> tuple[float, float]:
    """Draws images and gives the peaks of host and GPU memory, in bytes; without a GPU the latter is 0.

    Args:
        way: one of `WAYS`.
        setting: what is drawn.
        per_class: images of each class.
        interval: noise levels at which guidance acts in our way.
    """
    ours = way == WAYS[1]
    rung = Ours(setting, STEPS, interval=interval, dtype=torch.bfloat16) if ours else Plain(setting, STEPS)
    rung.draw(setting.requests(per_class), setting.folder / f"memory_{WAYS.index(way)}_{per_class}")
    return peaks(setting.device)


def tuning_peaks(way: str, setting: Setting, images: Sequence[tuple[Path, str]]) -> tuple[float, float]:
    """Fine-tunes for some steps and gives the peaks of host and GPU memory, in bytes; without a GPU the latter is 0.

    Args:
        way: one of `TUNING`.
        setting: the base and where is trained.
        images: paths and prompts.
    """
    if way == TUNING[0]:
        stepper = Stepper(setting.base, setting.device, list(images), setting.size, False, False, learn_text=True)
        for _ in range(STEPS):
            stepper.step()
    else:
        folder = setting.folder / "tuned"
        changes = {"max_steps": STEPS, "amp": "bfloat16", **setting.overlay}
        train_as_shipped(setting.base, setting.device, list(images), setting.size, folder, **changes)
    return peaks(setting.device)


def peaks(device: torch.device) -> tuple[float, float]:
    """The most host and GPU memory of this process, in bytes; without a GPU the latter is 0."""
    return peak_host_bytes() or 0, torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


def in_own_process(function: Callable[..., tuple[float, float]], *args: Any) -> tuple[float, float]:
    """What a function gives in a new process, so that nothing counts that was done here before."""
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        return pool.submit(function, *args).result()


def benchmark_memory(
    setting: Setting, images: list[tuple[Path, str]], interval: tuple[float, float], per_class: int = BATCH
) -> str:
    """The tables of peaks, with all libraries included: of fine-tuning; of some images and of many times as many.

    Args:
        setting: what is drawn, and with which base is trained.
        images: paths and prompts, to train on.
        interval: noise levels at which guidance acts in our way.
        per_class: the smaller number of images of each class.
    """
    counts = [per_class * len(setting.prompts), TIMES * per_class * len(setting.prompts)]
    rows = []
    for way in TUNING:
        found = zip(("host", "GPU"), in_own_process(tuning_peaks, way, setting, images))
        rows += [[way, kind, f"{peak / MIB:.0f}"] for kind, peak in found if peak]
    title = f"Peak memory of fine-tuning on batches of {TUNING_BATCH}, in MiB"
    tuning, rows = markdown(title, ["way", "memory", "peak"], rows), []
    for way in WAYS:
        few, many = (
            in_own_process(peaks_of, way, setting, number, interval) for number in (per_class, TIMES * per_class)
        )
        for kind, before, after in zip(("host", "GPU"), few, many):
            if before:
                growth = f"{(after - before) / MIB:+.0f}"
                rows.append([way, kind, f"{before / MIB:.0f}", f"{after / MIB:.0f}", growth])
    columns = ["way", "memory", *(f"{count} images" for count in counts), "growth"]
    return tuning + "\n" + markdown(f"Peak memory of drawing in batches of {BATCH}, in MiB", columns, rows)
