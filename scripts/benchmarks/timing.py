"""Times of several ways to do one thing, taken in turns, and tables of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch


def in_turns(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """The seconds of each way in every round; a round runs all of them, so that a busy machine slows all alike.

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
    return seconds


def ratio(reference: Sequence[float], own: Sequence[float]) -> float:
    """How many times as fast as a reference: the median over the rounds, each of which compares within itself."""
    return median(other / one for other, one in zip(reference, own, strict=True))


def speeds(seconds: Mapping[str, Sequence[float]], builds_on: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Three columns for each way: how many times as fast as the first, from the slowest round to the fastest, and as
    the way that it builds on.

    Args:
        seconds: of each way in every round.
        builds_on: the way that a way changes in one thing, where that is not the one before.
    """
    names, cells = list(seconds), {}
    first = seconds[names[0]]
    for before, name in zip([names[0], *names], names):
        own = [other / one for other, one in zip(first, seconds[name], strict=True)]
        lever = ratio(seconds[(builds_on or {}).get(name, before)], seconds[name])
        cells[name] = [f"{ratio(first, seconds[name]):.2f}x", f"{min(own):.2f} to {max(own):.2f}", f"{lever:.2f}x"]
    return cells


SPEEDS = ("speed", "in the rounds", "of what it builds on")  # the columns of `speeds`


def synchronize() -> None:
    """Waits for the accelerator, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def markdown(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A titled table."""
    lines = [f"**{title}**", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
