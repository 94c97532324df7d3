"""What a run asks of the process and the machine that it runs on."""

from __future__ import annotations

import functools
import logging
import os
import platform
from typing import Any

import psutil
import torch

from ..utils.cores import processor_name, usable_cores
from ..utils.memory import peak_host_bytes

logger = logging.getLogger(__name__)
_on_gpu = False


def peak_memory() -> dict[str, float]:
    """The most memory that this process has held so far, in MB, of the host and of the GPU where there is one."""
    host = peak_host_bytes()
    found = {} if host is None else {"host": round(host / 1024**2, 1)}
    if _on_gpu:
        found["gpu"] = round(torch.cuda.max_memory_allocated() / 1024**2, 1)
    return found


def use_device(device: torch.device | str) -> None:
    """Makes a GPU that a config names the one that memory is pinned and peaks are noted for."""
    global _on_gpu
    wanted = torch.device(device)
    _on_gpu = wanted.type == "cuda"
    if _on_gpu and wanted.index is not None:
        torch.cuda.set_device(wanted)


@functools.cache
def use_threads(wanted: int | str | None) -> None:
    """Sets how many threads torch computes with, and warns when there are more than there are free cores.

    Args:
        wanted: a number; None takes what torch takes by itself (OMP_NUM_THREADS where it is set, the machine's cores
            elsewhere), no more than the process may use by its affinity and control group; "auto" takes those of them
            that no other program keeps busy now.
    """
    usable = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        usable = min(usable, usable_cores())
    idle = idle_cores()
    number = usable if wanted is None else max(1, min(usable, idle)) if wanted == "auto" else int(wanted)
    if number > max(1, idle):
        logger.warning(
            "Other programs keep all but %d of the %s cores busy, and this one computes with %d threads. Threads that "
            "wait for each other make both several times slower: leave cores to it with --num_threads.",
            idle,
            psutil.cpu_count(),
            number,
        )
    torch.set_num_threads(number)


def idle_cores(seconds: float = 0.3) -> int:
    """Cores of the machine that nobody keeps busy.

    Args:
        seconds: how long it is looked at.
    """
    cores = psutil.cpu_count() or 1
    return round(cores * (1 - psutil.cpu_percent(seconds) / 100))


def device_name() -> str:
    """The name of the GPU, or of the processor."""
    return torch.cuda.get_device_name() if _on_gpu else processor_name()


def machine() -> dict[str, Any]:
    """What a run notes of where it ran."""
    threads = torch.get_num_threads()
    return {"system": platform.platform(), "cores": os.cpu_count(), "threads": threads, "device": device_name()}
