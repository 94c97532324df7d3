"""Which images a step sees: by odds of real and synthetic ones, or synthetic ones first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from .records import Record


def realized_first(synthetic_first: float, num_epochs: int) -> float:
    """The share of a training's epochs that `synthetic_first` makes synthetic, which are whole ones.

    Raises:
        ValueError: when a share between 0 and 1 would be none of the epochs or all; says which can be.
    """
    if not 0 < synthetic_first < 1:
        return synthetic_first
    first = round(synthetic_first * num_epochs)
    if first in (0, num_epochs):
        most = num_epochs - 1
        can_be = f"Name {1 / num_epochs:.3g} to {most / num_epochs:.3g}" if most > 0 else "Name 0 or 1"
        raise ValueError(
            f"synthetic_first is {synthetic_first}, which of num_epochs {num_epochs} is {first} and not a part. "
            f"{can_be}, or train longer: an epoch has at most 25 of the --classifier_steps."
        )
    return first / num_epochs


class OriginSampler(Sampler[int]):
    """Draws images with replacement, so that every policy gets the same number of optimizer steps.

    Args:
        records: of the training data, in its order.
        num_samples: draws of an epoch.
        real_share: odds of a real image, 0 to 1; None draws every image alike.
        synthetic_first: share of the epochs in which synthetic images alone are drawn; after them real ones alone. 0 is
            no such order, see `realized_first`.
        num_epochs: epochs in all.

    Raises:
        ValueError: for a share out of its range, or an order that `realized_first` refuses.

    Example:
        >>> sampler = OriginSampler([{"origin": "real"}, {"origin": "synthetic"}], num_samples=4, real_share=1.0)
        >>> list(sampler)
        [0, 0, 0, 0]
    """

    def __init__(
        self,
        records: Sequence[Record],
        num_samples: int,
        real_share: float | None = None,
        synthetic_first: float = 0.0,
        num_epochs: int = 1,
    ) -> None:
        for name, value in (("real_share", real_share), ("synthetic_first", synthetic_first)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must lie between 0 and 1.")
        self.is_real = torch.tensor([record["origin"] == "real" for record in records])
        mixed = bool(self.is_real.any()) and not bool(self.is_real.all())
        # A baseline has images of one origin alone, for which odds and order mean nothing.
        self.real_share = real_share if mixed else None
        self.first_epochs = round(realized_first(synthetic_first, num_epochs) * num_epochs) if mixed else 0
        self.ordered = mixed and synthetic_first > 0
        self.num_samples = num_samples
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Tells the epoch that comes, counted from 1; `EpochSeed` does."""
        self.epoch = epoch

    def odds(self) -> torch.Tensor:
        """The probability of each image in this epoch, shape (N,)."""
        real = self.is_real.double()
        if self.ordered:
            chosen = 1 - real if self.epoch <= self.first_epochs else real
            return chosen / chosen.sum()
        if self.real_share is None:
            return torch.full_like(real, 1 / len(real))
        return self.real_share * real / real.sum() + (1 - self.real_share) * (1 - real) / (1 - real).sum()

    def __iter__(self) -> Iterator[int]:
        return iter(torch.multinomial(self.odds(), self.num_samples, replacement=True).tolist())

    def __len__(self) -> int:
        return self.num_samples
