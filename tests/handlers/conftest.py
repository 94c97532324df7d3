"""Fixtures of the trainings."""

import signal

import pytest

from monai_synth.utils.stopping import stop_request


@pytest.fixture(autouse=True)
def listening():
    before = signal.getsignal(signal.SIGTERM)
    yield
    stop_request.listen()  # forgets what was asked
    signal.signal(signal.SIGTERM, before)
