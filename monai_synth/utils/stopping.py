"""SIGTERM, as batch systems send it before they end a job: what is at work is saved first."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

logger = logging.getLogger(__name__)


class StopRequest:
    """A request to stop, which ends the program at once or, while somebody holds it, when that one lets go.

    Whoever has work in memory that the disk does not have yet holds the request, saves when it is wanted, and releases
    it. A second request does not wait.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.held = False

    def listen(self) -> None:
        """From now on SIGTERM is such a request. Only a program's main thread can listen."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._come)

    def _come(self, number: int, frame: FrameType | None) -> None:
        if self.held and not self.wanted:
            self.wanted = True
            logger.warning("Asked to stop (SIGTERM). Saving after this step.")
            return
        self.leave()

    def hold(self) -> None:
        """A request waits from now on."""
        self.held = True

    def release(self) -> None:
        """A request does not wait any longer; all is on the disk."""
        self.held = False

    def leave(self) -> None:
        """Ends the program in order, with the exit status of SIGTERM.

        Raises:
            SystemExit: always.
        """
        self.wanted = self.held = False
        logger.warning("Asked to stop (SIGTERM). What is on the disk is whole; run the same command to go on.")
        raise SystemExit(128 + signal.SIGTERM)


stop_request = StopRequest()
