"""How much memory is free, in a container as on a machine, how many images it holds, and how much was had."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")  # a container's own limit, version 2
STATUS = Path("/proc/self/status")  # of this process, on Linux
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


def peak_host_bytes() -> int | None:
    """The most host memory that this process has had, in bytes; None where the system does not say, as on Windows.

    Linux hands on the peak of the process that started this one in `ru_maxrss`, but not in the memory's own record.
    """
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    if peaks:
        return peaks[0] * 2**10
    if os.name != "posix":
        return None
    import resource

    unit = 1 if platform.system() == "Darwin" else 2**10  # ru_maxrss is in bytes on macOS and in kB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
