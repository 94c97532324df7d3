"""How images are drawn, and how a training step is fitted to the memory."""

from .in_parts import InPartsInferer
from .sampling import SamplingInferer

__all__ = ["InPartsInferer", "SamplingInferer"]
