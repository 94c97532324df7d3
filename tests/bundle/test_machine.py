import pytest
import torch

from monai_synth.bundle import machine


@pytest.fixture
def eight_cores(monkeypatch):
    """A machine of 8 cores, of which a given share is busy, and a process that may use a given number of them."""
    before = torch.get_num_threads()

    def pretend(busy, usable=8):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(machine.psutil, "cpu_count", lambda: 8)
        monkeypatch.setattr(machine.psutil, "cpu_percent", lambda seconds: 100 * busy)
        monkeypatch.setattr(machine, "usable_cores", lambda: usable)
        machine.use_threads.cache_clear()
        torch.set_num_threads(8)

    yield pretend
    torch.set_num_threads(before)
    machine.use_threads.cache_clear()


@pytest.mark.parametrize(
    ("busy", "usable", "wanted", "number", "warned"),
    [
        (0.0, 8, None, 8, False),
        (0.0, 3, None, 3, False),  # a container's share
        (0.5, 8, None, 8, True),
        (0.5, 3, None, 3, False),
        (0.5, 8, "auto", 4, False),
        (1.0, 8, "auto", 1, False),
        (0.9, 8, 5, 5, True),
    ],
)
def test_threads_are_chosen_for_cores_and_load(eight_cores, caplog, busy, usable, wanted, number, warned):
    eight_cores(busy, usable)
    machine.use_threads(wanted)
    assert torch.get_num_threads() == number == machine.machine()["threads"]
    assert ("leave cores to it with --num_threads" in caplog.text) == warned


def test_the_environment_decides_where_it_says_something(eight_cores, monkeypatch):
    eight_cores(0.0, 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    machine.use_threads(None)
    assert torch.get_num_threads() == 8


def test_a_run_notes_its_own_peak_in_mb(monkeypatch):
    monkeypatch.setattr(machine, "_on_gpu", False)
    monkeypatch.setattr(machine, "peak_host_bytes", lambda: 3 * 2**19)
    assert machine.peak_memory() == {"host": 1.5}
    monkeypatch.setattr(machine, "peak_host_bytes", lambda: None)
    assert machine.peak_memory() == {}
