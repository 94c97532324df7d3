"""How much memory is free, in a container as on a machine, and how many images it holds."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")  # a container's own limit, version 2
CACHED_SHARE = 0.25  # of the free memory, for all processes of the machine


def free_host_bytes() -> int:
    """Bytes that are free on the machine; what a container keeps of files that were read counts as free too."""
    free = psutil.virtual_memory().available
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()) + cached_file_bytes())
    return free


def cached_file_bytes() -> int:
    """Bytes of files that a container holds in memory and gives back where memory is asked for; 0 where it says none.

    Reference:
        "Control Group v2" of the Linux kernel's documentation, memory.stat: inactive_file and active_file.
    """
    stat = CGROUP / "memory.stat"
    lines = [line.split() for line in stat.read_text().splitlines()] if stat.exists() else []
    return sum(int(value) for key, value in lines if key in ("inactive_file", "active_file"))


def cached_images(size: int) -> int:
    """How many images a process may keep between epochs in a quarter of the free memory; the others are read again.

    Args:
        size: pixels of a side of the images, which are kept as float32 with three channels.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return int(CACHED_SHARE * max(0, free_host_bytes()) / processes) // (3 * 4 * size**2)
