"""Inferers."""

from .sampling import SamplingInferer

__all__ = ["SamplingInferer"]
