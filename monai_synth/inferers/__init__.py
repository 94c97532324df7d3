"""How images are drawn, and how a batch is fitted to the memory and computed in half precision."""

from .cuda_graph import CUDAGraph
from .halving import HalvingInferer
from .in_parts import InPartsInferer
from .mixed_precision import MixedPrecisionInferer
from .sampling import SamplingInferer

__all__ = ["CUDAGraph", "HalvingInferer", "InPartsInferer", "MixedPrecisionInferer", "SamplingInferer"]
