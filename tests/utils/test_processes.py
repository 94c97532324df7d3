"""Which GPU a process of torchrun gets; what several processes do together is in tests/bundles/test_processes.py."""

import pytest
import torch

from monai_synth.utils import best_device, processes


@pytest.fixture
def torchrun(monkeypatch):
    """Pretends to be one of several processes that torchrun has started on a machine with some GPUs."""
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(processes.dist, "rendezvous", lambda *args, **kwargs: iter([(None, 0, 0)]))
    monkeypatch.setattr(processes.dist, "PrefixStore", lambda *args: None)

    def pretend(local, gpus, world=4):
        monkeypatch.setenv("WORLD_SIZE", str(world))
        monkeypatch.setenv("LOCAL_RANK", str(local))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        return chosen

    return pretend


@pytest.mark.parametrize(("local", "gpus"), [(1, 1), (3, 2)])
def test_more_processes_than_gpus_are_refused(torchrun, local, gpus):
    chosen = torchrun(local, gpus)
    with pytest.raises(RuntimeError) as error:
        processes.join(best_device())
    assert str(error.value) == (
        f"torchrun starts process {local} on this machine, counted from 0. GPUs that it has: {gpus}. Ask for "
        f"--nproc_per_node {gpus} or fewer, or compute without them: --device cpu."
    )
    assert chosen == [] and not torch.distributed.is_initialized()


@pytest.fixture
def joined(monkeypatch):
    """The backends over which processes were to meet, which they do not do here."""
    backends = []
    monkeypatch.setattr(processes.dist, "init_process_group", lambda backend, **kwargs: backends.append(backend))
    monkeypatch.setattr(processes.dist, "new_group", lambda **kwargs: None)
    monkeypatch.setattr(processes, "_group", None)
    monkeypatch.setattr(processes.atexit, "register", lambda function: None)
    return backends


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_processes_that_compute_on_the_cpu_need_no_gpus_where_there_are_some(torchrun, joined, device):
    chosen = torchrun(local=3, gpus=1)
    processes.join(device)
    assert joined == ["gloo"] and chosen == []


@pytest.mark.parametrize(("local", "gpus", "backend"), [(1, 2, "cpu:gloo,cuda:nccl"), (3, 0, "gloo")])
def test_each_process_has_a_gpu_of_its_own_or_none(torchrun, joined, local, gpus, backend):
    chosen = torchrun(local, gpus)
    processes.join(best_device())
    assert joined == [backend] and chosen == [local] * (gpus > 0)
    assert best_device() == (torch.device("cuda", local) if gpus else torch.device("cpu"))


def test_a_single_process_meets_nobody(torchrun):
    assert torchrun(local=0, gpus=1, world=1) == []
    processes.join(best_device())
    assert not torch.distributed.is_initialized() and best_device() == torch.device("cuda", 0)
