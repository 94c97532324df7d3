"""Several processes of one run, as torchrun starts them: who writes, who does what, and who waits for whom.

Without torchrun there is one process and nothing here does anything.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
MEETING = timedelta(minutes=3)  # whoever has not come by then is lost, and torchrun starts all anew
PATIENCE = timedelta(hours=24)  # one process may scan a large data set while the others wait
_group: Any = None  # the processes, waiting with patience


def join(device: torch.device | str) -> None:
    """Meets the other processes that torchrun has started, over nccl where they compute on GPUs and gloo elsewhere.

    Args:
        device: of the run's config.

    Raises:
        RuntimeError: when there are fewer GPUs on the machine than processes that compute on them.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        return
    on_gpus = torch.cuda.is_available() and str(device).startswith("cuda")
    if on_gpus:
        local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= here:
            raise RuntimeError(
                f"torchrun starts process {local} on this machine, counted from 0. GPUs that it has: {here}. Ask "
                f"for --nproc_per_node {here} or fewer, or compute without them: --device cpu."
            )
        torch.cuda.set_device(local)
    global _group
    store, own_rank, world_size = next(iter(dist.rendezvous("env://", timeout=MEETING)))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpus else "gloo",  # by where a tensor lies
        timeout=MEETING,
        store=dist.PrefixStore(f"attempt_{attempt()}", store),
        rank=own_rank,
        world_size=world_size,
    )
    _group = dist.new_group(timeout=PATIENCE)
    atexit.register(leave)  # threads of gloo that outlive Python would abort the process


def attempt() -> str:
    """How often torchrun has started the processes anew, on one machine.

    They meet in a store that outlives them, and without a place of their own they would call on the addresses of those
    who are gone. The machines of several count by themselves; there torchrun has to make a new store each time, see
    docs/many_machines.md.
    """
    on_one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if on_one_machine else "0"


def leave() -> None:
    """Takes leave of the other processes, at the end of the program."""
    if dist.is_initialized():
        dist.destroy_process_group()


def best_device() -> torch.device:
    """The GPU that belongs to this process, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def rank() -> int:
    """The number of this process, 0 for the first or only one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def count() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes what all share."""
    return rank() == 0


def wait_for_all() -> None:
    """Waits until every process has come here."""
    if count() > 1:
        dist.barrier(group=_group)


def agreed(value: T) -> T:
    """What the first process says, so that all go the same way."""
    if count() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_group)
    return values[0]


def gathered(value: T) -> list[T]:
    """What each process says, in their order."""
    values = [value] * count()
    if count() > 1:
        dist.all_gather_object(values, value, group=_group)
    return values


def any_of(value: bool) -> bool:
    """Whether it holds in any process."""
    return any(gathered(value))


def average(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes, in its place."""
    if count() > 1:
        dist.all_reduce(values, group=_group)
        values /= count()
    return values


def from_first(values: torch.Tensor) -> torch.Tensor:
    """What the first process has, put into the tensor of every process."""
    if count() > 1:
        dist.broadcast(values, src=0, group=_group)
    return values


def first_only(function: Callable[[], T]) -> T:
    """Runs a function in the first process while the others wait, and gives its result in all of them.

    Raises:
        RuntimeError: in the other processes, when the function raises in the first; what it raises is raised there.
    """
    if count() == 1:
        return function()
    result: Any = None
    error: Exception | None = None
    if is_first():
        try:
            result = function()
        except Exception as raised:  # told to the others, who would wait for ever, and raised below
            error = raised
    message = agreed(None if error is None else str(error))
    if error is not None:
        raise error
    if message is not None:
        raise RuntimeError(f"The first process stopped: {message}")
    return agreed(result)


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of a list: every n-th item, so that all classes are shared evenly."""
    return items[rank() :: count()]


def per_process(batch_size: int) -> int:
    """This process's part of a batch, so that a step sees as many images however many processes there are.

    Raises:
        ValueError: when the batch cannot be divided.
    """
    if batch_size % count():
        raise ValueError(
            f"A batch of {batch_size} images cannot be divided among {count()} processes. Choose a multiple of "
            f"{count()}, or another number of processes."
        )
    return batch_size // count()


def alone(what: str) -> None:
    """Refuses more than one process for what cannot be divided.

    Raises:
        RuntimeError: under torchrun with several processes.
    """
    if count() > 1:
        raise RuntimeError(
            f"{what} runs in one process, but torchrun has started {count()}. Run it without torchrun first; the other "
            "configs find its outputs."
        )
