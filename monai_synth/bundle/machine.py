"""What a run asks of the process and the machine that it runs on."""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
from typing import Any

import torch

logger = logging.getLogger(__name__)


def peak_memory() -> dict[str, float]:
    """The most memory that this process has held so far, in MB, of the host and of the GPU where there is one."""
    found = {}
    if os.name == "posix":
        import resource

        unit = 1024 if platform.system() == "Linux" else 1024**2  # ru_maxrss is in kB on Linux and in bytes on macOS
        found["host"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
    if torch.cuda.is_available():
        found["gpu"] = round(torch.cuda.max_memory_allocated() / 1024**2, 1)
    return found


def device_name() -> str:
    """The name of the GPU, or of the processor's kind."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()


def leave_on_request() -> None:
    """From now on SIGTERM, as batch systems send it, ends the run at once and in order; the same command goes on.

    The last state on the disk is at most 25 optimizer steps old, and a batch of images is drawn again.
    """

    def leave(number: int, frame: Any) -> None:
        logger.warning("Asked to stop (SIGTERM). What is on the disk is whole; run the same command to go on.")
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, leave)
