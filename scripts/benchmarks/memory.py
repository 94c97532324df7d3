"""Peak memory of drawing few and many images, each in a process of its own."""

from __future__ import annotations

import resource
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from .generation import BATCH, Ours, Plain, Setting
from .timing import markdown

STEPS = 2  # of a sampler; more take no more memory
TIMES = 20  # as many images, which must not take more memory
MIB = 2**20
WAYS = "the works' way: diffusers' pipeline", "ours: adapter in the weights, two writers, bfloat16"


def peak_host_memory() -> float:
    """The most host memory that this process has had, in bytes.

    Linux hands on the peak of the process that started it in `ru_maxrss`, but not in the memory's own record.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return (peaks[0] if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 2**10


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
    return peak_host_memory(), torch.cuda.max_memory_allocated() if setting.device.type == "cuda" else 0


def in_own_process(way: str, setting: Setting, per_class: int, interval: tuple[float, float]) -> tuple[float, float]:
    """What `peaks_of` gives in a new process, so that nothing counts that was done here before."""
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        return pool.submit(peaks_of, way, setting, per_class, interval).result()


def benchmark_memory(setting: Setting, interval: tuple[float, float], per_class: int = BATCH) -> str:
    """The table of peaks for a number of images and for many times as many, with all libraries included.

    Args:
        setting: what is drawn.
        interval: noise levels at which guidance acts in our way.
        per_class: the smaller number of images of each class.
    """
    counts = [per_class * len(setting.prompts), TIMES * per_class * len(setting.prompts)]
    rows = []
    for way in WAYS:
        few, many = (in_own_process(way, setting, number, interval) for number in (per_class, TIMES * per_class))
        for kind, before, after in zip(("host", "GPU"), few, many):
            if before:
                growth = f"{(after - before) / MIB:+.0f}"
                rows.append([way, kind, f"{before / MIB:.0f}", f"{after / MIB:.0f}", growth])
    columns = ["way", "memory", *(f"{count} images" for count in counts), "growth"]
    return markdown(f"Peak memory of drawing in batches of {BATCH}, in MiB", columns, rows)
