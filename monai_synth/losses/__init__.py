"""Losses."""

from .weighted import DenoisingLoss, WeightedCrossEntropy

__all__ = ["DenoisingLoss", "WeightedCrossEntropy"]
