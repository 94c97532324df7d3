"""Requests to stop that come when nothing is at work any more."""

import subprocess
import sys

LATE = """
import os, signal
from monai_synth.utils.stopping import stop_request

class Late:
    def __del__(self, kill=os.kill, me=os.getpid(), number=signal.SIGTERM):
        kill(me, number)

late = Late()  # is deleted when Python has taken the handlers off
stop_request.listen()
print("done", flush=True)
"""


def test_a_program_that_is_done_does_not_end_as_a_killed_one():
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
