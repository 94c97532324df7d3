"""Times of several ways to do one thing, taken in turns, and tables of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch


def in_turns(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median seconds of each way; every round runs all of them, so that a busy machine slows all alike.

    Args:
        ways: what is timed, by name; each has run once before, so that nothing is timed that happens once.
        repeats: rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            synchronize()
            start = time.perf_counter()
            way()
            synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def synchronize() -> None:
    """Waits for the accelerator, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def markdown(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A titled table."""
    lines = [f"**{title}**", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
