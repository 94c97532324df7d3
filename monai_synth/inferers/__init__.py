"""How images are drawn, and how a training step is fitted to the memory and computed in half precision."""

from .in_parts import InPartsInferer
from .mixed_precision import MixedPrecisionInferer
from .sampling import SamplingInferer

__all__ = ["InPartsInferer", "MixedPrecisionInferer", "SamplingInferer"]
