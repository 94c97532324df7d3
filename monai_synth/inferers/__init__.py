"""Inferers."""

from .sampling import SCHEDULERS, SamplingInferer

__all__ = ["SCHEDULERS", "SamplingInferer"]
