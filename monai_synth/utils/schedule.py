"""Optimizer steps as epochs, since Ignite counts in epochs."""

from __future__ import annotations

LONGEST_EPOCH = 25  # steps between two states on the disk


def num_epochs(steps: int) -> int:
    """The number of epochs of at most 25 steps that hold a number of optimizer steps."""
    return -(-steps // LONGEST_EPOCH)


def epoch_length(steps: int) -> int:
    """The steps of each epoch; `num_epochs` of them hold all steps, a few more where they do not divide evenly."""
    return -(-steps // num_epochs(steps))
