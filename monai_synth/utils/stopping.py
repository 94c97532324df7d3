"""SIGTERM, as batch systems send it before they end a job: what is at work is saved first."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time
from types import FrameType

logger = logging.getLogger(__name__)
PATIENCE = 25.0  # seconds; batch systems and torchrun kill after 30
SAME = 5.0  # seconds; batch systems and torchrun signal a process and its group, so that one request comes twice


class StopRequest:
    """A request to stop, which ends the program at once or, while somebody holds it, when that one lets go.

    Whoever has work in memory that the disk does not have yet holds the request, saves when it is wanted, and releases
    it. A second one, some seconds later, does not wait, and nor does the first for more than 25 seconds: then
    the program ends with what is on the disk.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.held = False
        self.since = 0.0
        self.timer: threading.Timer | None = None

    def listen(self) -> None:
        """From now on SIGTERM is such a request. Only a program's main thread can listen."""
        self._forget()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._come)
            atexit.unregister(_end_undisturbed)
            atexit.register(_end_undisturbed)

    def _forget(self) -> None:
        self.wanted = self.held = False
        if self.timer is not None:
            self.timer.cancel()

    def _come(self, number: int, frame: FrameType | None) -> None:
        if self.held and not self.wanted:
            self.wanted, self.since = True, time.monotonic()
            self.timer = threading.Timer(PATIENCE, self._give_up)
            self.timer.daemon = True
            self.timer.start()
            logger.warning("Asked to stop (SIGTERM). Saving after this step.")
        elif not self.held or time.monotonic() - self.since > SAME:
            self.leave()

    def _give_up(self) -> None:
        if self.wanted:
            logger.warning("What is at work takes too long to be saved. What is on the disk is whole.")
            os._exit(128 + signal.SIGTERM)  # the main thread may be within a step for minutes

    def hold(self) -> None:
        """A request waits from now on."""
        self.held = True

    def release(self) -> None:
        """A request does not wait any longer; all is on the disk.

        Raises:
            SystemExit: when there is one.
        """
        self.held = False
        if self.wanted:
            self.leave()

    def leave(self) -> None:
        """Ends the program in order, with the exit status of SIGTERM.

        Raises:
            SystemExit: always.
        """
        self._forget()
        logger.warning("Asked to stop (SIGTERM). What is on the disk is whole; run the same command to go on.")
        raise SystemExit(128 + signal.SIGTERM)


def _end_undisturbed() -> None:
    """Python takes its handlers off before it ends; a request that came then would make a finished job a killed one."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


stop_request = StopRequest()


def start_reader(worker_id: int) -> None:
    """Begins a process that reads images for a training, for `DataLoader(worker_init_fn=...)`.

    It leaves the process group, whose signals are meant for the training: that needs its readers until it has saved.
    They end with it.

    Args:
        worker_id: its number, as torch counts.
    """
    from monai.data.utils import worker_init_fn

    worker_init_fn(worker_id)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
